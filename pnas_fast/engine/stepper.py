"""One training step: forward, loss, backward, clipping, update, schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.engine.optimizer import build_optimizer
from pnas_fast.engine.settings import TrainingSettings
from pnas_fast.network import Logits

SCALER = "loss_scale"
"""Name of the loss scaling's part of a `Stepper.state`."""


class Stepper:
    """Updates a network's parameters by the recipe of its settings.

    The learning rate falls from ``settings.learning_rate`` to 0 along half a cosine over the whole
    training (docs/method.md, 2). Whatever a step reads or changes is on the network's device and stays where
    it is, and a step waits for nothing, so a CUDA graph can hold it. SGD moves parameters once, here:
    whoever keeps their addresses comes later.

    With ``precision`` fp16 the loss is scaled before the backward: twice as much after 2,000 steps without
    an overflow, half as much after one, whose step changes nothing else (Micikevicius et al. 2018).

    Args:
        network: returns logits, or `Logits` where it has an auxiliary classifier; on its device already.
        settings: the recipe, its precision resolved.
        auxiliary: what the auxiliary classifier's loss is multiplied by before it is added
            (docs/method.md, 3.2).
        average: replaces gradients by their mean over the processes that train together.
        weights: of classes, fp32 (classes,): an image's loss is multiplied by that of its class, and the mean
            over the batch is still one over its number of images, which processes share evenly. See
            `pnas_fast.engine.class_weights`.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainingSettings,
        *,
        auxiliary: float = 0.0,
        average: Callable[[Sequence[Tensor]], None] = lambda gradients: None,
        weights: Tensor | None = None,
    ) -> None:
        self._network = network
        self._settings = settings
        self._auxiliary = auxiliary
        self._average = average
        self._weights = weights
        self._parameters = list(network.parameters())
        first = self._parameters[0]
        self._rate = torch.zeros((), dtype=first.dtype, device=first.device)
        self._optimizer = build_optimizer(self._parameters, settings, self._rate)
        self._scaler = torch.amp.GradScaler(first.device.type, enabled=settings.precision == "fp16")

    def step(self, images: Tensor, labels: Tensor, progress: float | Tensor) -> Tensor:
        """Update once; the mean loss of the batch, still on its device.

        Args:
            images: (batch, C, H, W), of the precision's type.
            labels: int64 (batch,).
            progress: the share of all steps that came before this one, in [0, 1).
        """
        self._set_rate(progress)
        loss = self._loss(self._network(images), labels)
        for parameter in self._parameters:
            parameter.grad = None
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        # Before unscaling, so that an overflow in one process is one in all, and all leave the step out.
        self._average([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        self._scaler.unscale_(self._optimizer)  # type: ignore[arg-type]  # it needs no more than ours has
        self._scaler.step(self._optimizer)  # type: ignore[arg-type]
        self._scaler.update()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """The state to checkpoint besides the network, by the parameter's index and the optimiser's name."""
        memory = {
            f"{index}.{name}": value
            for index, parameter in enumerate(self._parameters)
            for name, value in self._optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }
        scaling = {
            f"{SCALER}.{name}": torch.tensor(value) for name, value in self._scaler.state_dict().items()
        }
        return memory | scaling

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`, of a stepper like this one; loss scaling may be missing and begins anew then.

        Raises:
            ValueError: something else is missing, is too much, or has another shape.
        """
        scaling = {name: value for name, value in state.items() if name.startswith(f"{SCALER}.")}
        known = [name for name in self.state() if name not in scaling and not name.startswith(f"{SCALER}.")]
        if state.keys() - scaling.keys() != set(known):
            raise ValueError(f"state of {len(state)} tensors, expected {' '.join(known)}")
        for key in known:
            place, _, name = key.partition(".")
            parameter, value = self._parameters[int(place)], state[key]
            if value.shape != parameter.shape:
                raise ValueError(f"{key} is {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            self._optimizer.state[parameter][name].copy_(value)
        if scaling:
            names = {name.removeprefix(f"{SCALER}."): value.item() for name, value in scaling.items()}
            self._scaler.load_state_dict(names)

    def _set_rate(self, progress: float | Tensor) -> None:
        half = self._settings.learning_rate / 2
        if isinstance(progress, Tensor):
            self._rate.copy_(torch.cos(math.pi * progress).mul_(half).add_(half))
        else:
            self._rate.fill_(half * math.cos(math.pi * progress) + half)

    def _loss(self, output: Tensor | Logits, labels: Tensor) -> Tensor:
        if isinstance(output, Logits):
            return self._loss(output.main, labels) + self._auxiliary * self._loss(output.auxiliary, labels)
        smoothing = self._settings.label_smoothing
        if self._weights is None:
            return F.cross_entropy(output, labels, label_smoothing=smoothing)
        losses = F.cross_entropy(output, labels, label_smoothing=smoothing, reduction="none")
        return (losses * self._weights.index_select(0, labels)).mean()
