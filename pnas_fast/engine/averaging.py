"""A moving average of a network's weights, which often judges better than the weights themselves."""

from __future__ import annotations

import torch
from torch import nn

from pnas_fast.kernels._torch_internals import foreach_copy_, foreach_lerp_


class WeightAverage:
    """The exponential moving average of a network's weights and running statistics.

    After step t (counted from 0), ``average += (1 - d) * (weights - average)`` with
    ``d = min(decay, (1 + t) / (10 + t))``, so that an average that is young forgets the random weights it
    began with. Integers, the counters of batch norms, are copied.

    Args:
        network: whose weights are averaged.
        into: a network like it, which takes the average over; it begins with ``network``'s weights.
        decay: in [0, 1); 0.9999 averages over the last ten thousand steps or so.
    """

    def __init__(self, network: nn.Module, into: nn.Module, decay: float) -> None:
        into.load_state_dict(network.state_dict())
        into.requires_grad_(False)
        self._decay = decay
        followed = network.state_dict()
        pairs = [(own, followed[name]) for name, own in into.state_dict().items()]
        self._averages = [own for own, _ in pairs if own.is_floating_point()]
        self._weights = [other for own, other in pairs if own.is_floating_point()]
        self._copies = [own for own, _ in pairs if not own.is_floating_point()]
        self._counters = [other for own, other in pairs if not own.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        foreach_lerp_(self._averages, self._weights, 1 - decay)
        if self._copies:
            foreach_copy_(self._copies, self._counters)
