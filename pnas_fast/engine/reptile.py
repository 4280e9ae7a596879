"""Reptile (Nichol et al. 2018): weights from which a few steps lead to a good solution of any task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.data.few_shot import Task
from pnas_fast.engine.graph import Step
from pnas_fast.kernels._torch_internals import (
    foreach_add_,
    foreach_addcdiv_,
    foreach_addcmul_,
    foreach_copy_,
    foreach_lerp_,
    foreach_mul,
    foreach_mul_,
    foreach_sqrt,
)

BETA = 0.999
"""Adam's decay of the mean of squares."""

EPSILON = 1e-8


class Adam:
    """Adam with β1 = 0, as Reptile's inner steps want it: momentum would carry over from task to task.

    ``s ← 0.999·s + 0.001·g²``, ``w ← w − rate·g / (√(s / (1 − 0.999ᵗ)) + 10⁻⁸)`` in step t, counted from 1.

    Args:
        parameters: all of a network, on one device.
        rate: the learning rate.

    Attributes:
        memory: s of each parameter and at last t, which stay where they are.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float) -> None:
        self._parameters, self._rate = parameters, rate
        self._squares = [torch.zeros_like(parameter).detach() for parameter in parameters]
        self._steps = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
        self.memory = [*self._squares, self._steps]

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        pairs = [(p, s) for p, s in zip(self._parameters, self._squares, strict=True) if p.grad is not None]
        parameters: list[Tensor] = [p for p, _ in pairs]
        squares = [s for _, s in pairs]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._steps += 1
        correction = (1 - BETA**self._steps).rsqrt().to(parameters[0].dtype)
        foreach_mul_(squares, BETA)
        foreach_addcmul_(squares, gradients, gradients, value=1 - BETA)
        roots = foreach_sqrt(squares)
        foreach_mul_(roots, correction)
        foreach_add_(roots, EPSILON)
        foreach_addcdiv_(parameters, gradients, roots, value=-self._rate)


class Adaptation:
    """Adapts a network to one task after another; a step needs nothing from outside, so it can be replayed.

    Args:
        network: returns logits; it is left in training mode, so that batch norm uses a batch's statistics.
        optimizer: of its parameters.
        task: whose shapes and labels all tasks have.
        replay: makes a step that does the same without Python.

    Attributes:
        task: the one that was adapted to last, in memory that stays where it is.
        losses: the sum of all steps' mean losses so far, float64, on the device.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Adam,
        task: Task,
        replay: Callable[[Step], Step] = lambda step: step,
    ) -> None:
        self._network, self._optimizer = network, optimizer
        self._parameters = list(network.parameters())
        self.task = Task(*(part.clone() for part in task))
        self._index = torch.zeros(1, dtype=torch.int64, device=task.places.device)
        self.losses = torch.zeros((), dtype=torch.float64, device=task.places.device)
        self._step = replay(self._train)

    def adapt(self, task: Task) -> None:
        """Take all of a task's steps."""
        self._network.train()
        for mine, part in zip(self.task, task, strict=True):
            mine.copy_(part)
        self._index.zero_()
        for _ in range(len(task.places)):
            self._step()

    def _train(self) -> None:
        images, labels, steps = self.task
        places = steps.index_select(0, self._index).view(-1)
        logits = self._network(images.index_select(0, places))
        loss = F.cross_entropy(logits, labels.index_select(0, places))
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.losses += loss.detach()
        self._index += 1


class Reptile:
    """Meta-learning of a network's weights.

    Meta-iteration i of n, counted from 0, adapts the weights φ to each of K tasks, by steps of Adam from φ
    on, and moves them towards the mean of what came out: ``φ ← φ + (1 − i/n) · (mean(W₁ … W_K) − φ)``. What
    Adam remembers is carried from task to task, as in the authors' code.

    Args:
        network: returns logits.
        adaptation: of the network.
        iterations: n.
    """

    def __init__(self, network: nn.Module, adaptation: Adaptation, iterations: int) -> None:
        self._adaptation, self._iterations = adaptation, iterations
        self._weights = [parameter.detach() for parameter in network.parameters()]
        self._start = [weight.clone() for weight in self._weights]
        self._sums = [torch.zeros_like(weight) for weight in self._weights]

    def step(self, iteration: int, tasks: Sequence[Task]) -> None:
        """One meta-iteration, with its tasks."""
        foreach_copy_(self._start, self._weights)
        for total in self._sums:
            total.zero_()
        for task in tasks:
            foreach_copy_(self._weights, self._start)
            self._adaptation.adapt(task)
            foreach_add_(self._sums, self._weights)
        means = foreach_mul(self._sums, 1 / len(tasks))
        foreach_copy_(self._weights, self._start)
        foreach_lerp_(self._weights, list(means), 1 - iteration / self._iterations)
