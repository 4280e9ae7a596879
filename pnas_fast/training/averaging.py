"""A moving average of a network's weights, which often judges better than the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of a network's weights and running statistics.

    After step t (counted from 0), ``average += (1 - d) * (weights - average)`` with
    ``d = min(decay, (1 + t) / (10 + t))``, so that an average that is young forgets the random weights it
    began with. Integers, the counters of batch norms, are copied.

    Args:
        network: whose weights are averaged.
        decay: in [0, 1); 0.9999 averages over the last ten thousand steps or so.

    Attributes:
        network: a copy with the averaged weights, to evaluate and to save.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        own, followed = _tensors(self.network), _tensors(network)
        floating = [tensor.is_floating_point() for tensor in own]
        self._averages = [tensor for tensor, real in zip(own, floating, strict=True) if real]
        self._weights = [tensor for tensor, real in zip(followed, floating, strict=True) if real]
        self._copies = [tensor for tensor, real in zip(own, floating, strict=True) if not real]
        self._counters = [tensor for tensor, real in zip(followed, floating, strict=True) if not real]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        if self._copies:
            torch._foreach_copy_(self._copies, self._counters)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in network.parameters()), *network.buffers()]
