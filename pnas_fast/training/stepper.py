"""One training step: forward, loss, backward, clipping, update, schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.network import Logits
from pnas_fast.training.settings import TrainingSettings


class Stepper:
    """Updates a network's parameters by the recipe of its settings.

    The learning rate falls from ``settings.learning_rate`` to 0 along half a cosine over the whole
    training (SPEC 2). Weight decay is on weights of convolutions and the classifier, not on batch
    norm's scales and shifts nor on biases.

    Args:
        network: returns logits, or `Logits` where it has an auxiliary classifier.
        settings: the recipe.
        auxiliary: what the auxiliary classifier's loss is multiplied by before it is added (SPEC 3.2).
        average: replaces gradients by their mean over the processes that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainingSettings,
        *,
        auxiliary: float = 0.0,
        average: Callable[[Sequence[Tensor]], None] = lambda gradients: None,
    ) -> None:
        self._auxiliary = auxiliary
        self._average = average
        self._network = network
        self._settings = settings
        self._parameters = list(network.parameters())
        weights = [parameter for parameter in self._parameters if parameter.ndim > 1]
        others = [parameter for parameter in self._parameters if parameter.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        rate = settings.learning_rate
        self._optimizer: torch.optim.Optimizer
        if settings.optimizer == "rmsprop":
            self._optimizer = torch.optim.RMSprop(groups, lr=rate, alpha=0.9, eps=1.0, momentum=0.9)
        else:
            self._optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=True)

    def step(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Update once; the mean loss of the batch, still on its device.

        Args:
            images: (batch, C, H, W).
            labels: int64 (batch,).
            progress: the share of all steps that came before this one, in [0, 1).
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        loss = self._loss(self._network(images), labels)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        self._average([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        if self._settings.clip > 0:
            nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        self._optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """What the optimiser remembers, by the parameter's place and the optimiser's own name for it."""
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self._parameters)
            for name, value in self._optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`, of a stepper like this one."""
        for key, value in state.items():
            index, _, name = key.partition(".")
            parameter = self._parameters[int(index)]
            # In the parameter's own layout, which a fused optimiser takes for granted.
            own = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
            self._optimizer.state[parameter][name] = own.copy_(value).detach()

    def _loss(self, output: Tensor | Logits, labels: Tensor) -> Tensor:
        if isinstance(output, Logits):
            return self._loss(output.main, labels) + self._auxiliary * self._loss(output.auxiliary, labels)
        return F.cross_entropy(output, labels, label_smoothing=self._settings.label_smoothing)
