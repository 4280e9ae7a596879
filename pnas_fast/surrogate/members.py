"""What both predictors share: an ensemble held as one module with a leading member dimension."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS

EMBEDDING = 100
"""Width D of a token's embedding (docs/method.md, 2)."""

HIDDEN = 100
"""Units of a hidden layer, and of the LSTM's state (docs/method.md, 2)."""

INPUTS = CELL_INPUTS + MAX_BLOCKS - 1
"""Distinct input tokens: two cells before and four earlier blocks."""

OUTPUT_BIAS = 1.8
"""The sigmoid of it, 0.858, is about the mean accuracy of one-block cells (docs/method.md, 2)."""


class MemberModule(nn.Module):
    """The part of an ensemble before and after the layers that differ: token embeddings and output unit.

    Every parameter has the members as its leading dimension E, so that one batched product serves all.
    Input tokens share one table and operation tokens another, whatever their position in a block; entries
    are drawn from U(-0.1, 0.1), layers from U(±1/√fan-in).
    """

    def __init__(self, members: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.members = members
        self.inputs = self._uniform(rng, 0.1, INPUTS, EMBEDDING)
        self.operations = self._uniform(rng, 0.1, len(OPERATIONS), EMBEDDING)
        self.output = self._layer(rng, HIDDEN, 1)
        self.output_bias = nn.Parameter(torch.full((members, 1, 1), OUTPUT_BIAS))

    def _uniform(self, rng: np.random.Generator, limit: float, *shape: int) -> nn.Parameter:
        # NumPy's generator, so that neither torch's global one nor the device has a say.
        values = rng.uniform(-limit, limit, (self.members, *shape)).astype(np.float32)
        return nn.Parameter(torch.from_numpy(values))

    def _layer(self, rng: np.random.Generator, fan_in: int, units: int) -> nn.Parameter:
        return self._uniform(rng, 1 / math.sqrt(fan_in), fan_in, units)

    def accuracy(self, hidden: Tensor) -> Tensor:
        """Predicted accuracies (E, n) in (0, 1) of hidden units (E, n, H): the output unit."""
        # Transposed, because a batched product with one column is several times slower than with one row.
        return torch.baddbmm(self.output_bias, self.output.mT, hidden.mT).squeeze(1).sigmoid()
