"""The optimisers of a training, all of whose state is on the device of the parameters.

What they compute is PyTorch's, by its functional forms. Its classes are not used: the first of them in a
process imports PyTorch's compiler, which takes longer than many a small child's epoch, and RMSprop's reads
the learning rate's value at every step on a CPU, so that no step could be recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pnas_fast.engine.flat import Flat
from pnas_fast.engine.settings import TrainingSettings
from pnas_fast.kernels._torch_internals import (
    foreach_add,
    foreach_add_,
    foreach_addcdiv_,
    foreach_addcmul_,
    foreach_mul,
    foreach_mul_,
    foreach_sqrt,
    foreach_sub_,
    sgd,
)

MOMENTUM = 0.9
"""Of both optimisers; RMSprop's is AmoebaNet's (docs/method.md, 3.3)."""

ALPHA = 0.9
"""RMSprop's decay of the mean of squares (docs/method.md, 3.3)."""

TINY = 1e-6
"""Added to the norm of gradients, as PyTorch does."""

EPSILON = 1.0
"""Added to RMSprop's root (docs/method.md, 3.3)."""


class Optimizer:
    """What both have in common: parameters, of which some decay, and what is remembered of each.

    Weight decay is on weights of convolutions and classifiers, not on batch norm's scales and shifts nor on
    biases. Memory begins as zeros, which is what a first step without any does, and which holds where loss
    scaling leaves that step out. Before an update gradients are divided by ``max(1, ‖g‖ / clip)``, with the
    norm of all together (Pascanu et al. 2013), where ``clip`` is not 0.

    Args:
        parameters: all of a network, on one device.
        settings: ``weight_decay`` and ``clip`` are read.
        rate: the learning rate, of no dimensions, on that device; it is read there at every step.

    Attributes:
        param_groups: parameters and weight decay, by PyTorch's names for `torch.amp.GradScaler`.
        state: of each parameter, by name; values may change, the tensors stay.
    """

    MEMORY: Sequence[str]

    def __init__(self, parameters: Sequence[nn.Parameter], settings: TrainingSettings, rate: Tensor) -> None:
        self.param_groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.state = {p: {name: torch.zeros_like(p) for name in self.MEMORY} for p in parameters}
        self._rate = rate
        self._clip = settings.clip

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises:
            ValueError: what is remembered of a parameter is not laid out as it, which fused updates believe.
        """
        raise NotImplementedError

    def _remembered(self, parameter: nn.Parameter, name: str) -> Tensor:
        own = self.state[parameter].get(name)
        if own is None or not _alike(own, parameter):
            found, allowed = "missing" if own is None else _layout(own), _layout(parameter)
            raise ValueError(f"optimiser: {name} is {found}, allowed is its parameter's {allowed}")
        return own


class SGD(Optimizer):
    """Nesterov's momentum (Sutskever et al. 2013): ``v ← 0.9·v + g``, ``w ← w − rate·(g + 0.9·v)``.

    Parameters are moved to lie side by side, and so does what is remembered. Then a step is a copy of the
    gradients, their norm and two updates, of what decays and what does not, for any number of parameters.

    ``grad_scale`` and ``found_inf`` are the loss scaling's, which sets them for a step's time; it changes
    nothing where ``found_inf`` is 1, and has divided gradients by its scale itself.
    """

    MEMORY = ("momentum_buffer",)
    _step_supports_amp_scaling = True  # what `torch.amp.GradScaler` asks
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, parameters: Sequence[nn.Parameter], settings: TrainingSettings, rate: Tensor) -> None:
        super().__init__(parameters, settings, rate)
        self._parameters: list[nn.Parameter] = [p for group in self.param_groups for p in group["params"]]
        self._weights, self._velocities = Flat(self._parameters), Flat(self._parameters)
        self._weights.take(self._parameters)
        for index, parameter in enumerate(self._parameters):
            parameter.data = self._weights.views[index]
            self.state[parameter] = {"momentum_buffer": self._velocities.views[index]}

    @torch.no_grad()
    def step(self) -> None:
        """See `Optimizer.step`.

        Raises:
            ValueError: a parameter, or what is remembered of it, is not where it was at first.
        """
        memory = [self._remembered(p, "momentum_buffer") for p in self._parameters]
        if not self._weights.holds(self._parameters) or not self._velocities.holds(memory):
            raise ValueError(
                "optimiser: a parameter or its momentum_buffer was moved, allowed are new values"
            )
        gradients = [p.grad for p in self._parameters]
        gradient = self._weights.gathered(gradients)
        if self._clip > 0:
            gradient.div_((torch.linalg.vector_norm(gradient) + TINY).div_(self._clip).clamp_min_(1.0))
        first = 0
        for group in self.param_groups:
            end = first + len(group["params"])
            self._update(gradient, self._weights.runs(gradients, first, end), group["weight_decay"])
            first = end

    def _update(self, gradient: Tensor, runs: list[slice], decay: float) -> None:
        if not runs:
            return
        sgd(
            [self._weights.memory[run] for run in runs],
            [gradient[run] for run in runs],
            [self._velocities.memory[run] for run in runs],
            fused=True,
            grad_scale=self.grad_scale,
            found_inf=self.found_inf,
            weight_decay=decay,
            momentum=MOMENTUM,
            lr=self._rate,  # type: ignore[arg-type]  # its fused form takes a tensor
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )


class RMSprop(Optimizer):
    """RMSprop with momentum, ε outside of the root (docs/method.md, 3.3).

    ``s ← 0.9·s + 0.1·g²``, ``v ← 0.9·v + g/(√s + 1)``, ``w ← w − rate·v``.
    """

    MEMORY = ("square_avg", "momentum_buffer")

    @torch.no_grad()
    def step(self) -> None:
        """See `Optimizer.step`."""
        if self._clip > 0:
            nn.utils.clip_grad_norm_([p for p in self.state if p.grad is not None], self._clip)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                memory = [[self._remembered(p, name) for p in parameters] for name in self.MEMORY]
                self._update(parameters, [p.grad for p in parameters], memory, group["weight_decay"])

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], memory: list[list[Tensor]], decay: float
    ) -> None:
        squares, velocities = memory
        if decay:
            gradients = list(foreach_add(gradients, parameters, alpha=decay))
        foreach_mul_(squares, ALPHA)
        foreach_addcmul_(squares, gradients, gradients, value=1 - ALPHA)
        roots = foreach_sqrt(squares)
        foreach_add_(roots, EPSILON)
        foreach_mul_(velocities, MOMENTUM)
        foreach_addcdiv_(velocities, gradients, roots)
        foreach_sub_(parameters, foreach_mul(velocities, self._rate))


def _alike(one: Tensor, other: Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one.device == other.device
    )


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def build_optimizer(
    parameters: Sequence[nn.Parameter], settings: TrainingSettings, rate: Tensor
) -> Optimizer:
    """The optimiser that ``settings.optimizer`` names; arguments are those of `Optimizer`."""
    kinds = {"sgd": SGD, "rmsprop": RMSprop}
    return kinds[settings.optimizer](parameters, settings, rate)
