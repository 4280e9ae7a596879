"""The MLP ensemble: size is handled by mean pooling over blocks (docs/method.md, 2)."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from pnas_fast.space import OPERATIONS
from pnas_fast.surrogate.members import EMBEDDING, HIDDEN, INPUTS, MemberModule

COLUMNS = (INPUTS, len(OPERATIONS), INPUTS, len(OPERATIONS))
"""Tokens of each column of codes."""

_FIRST_TOKENS = (0, *accumulate(COLUMNS[:-1]))
"""The index of each column's first token among those of all columns."""


class MLPEnsemble(MemberModule):
    """Mean over blocks of the four concatenated embeddings, two ReLU layers, a sigmoid unit.

    Args:
        members: E, the number of networks held side by side.
        rng: draws the initial weights.
    """

    def __init__(self, members: int, rng: np.random.Generator) -> None:
        super().__init__(members, rng)
        self.first = self._layer(rng, 4 * EMBEDDING, HIDDEN)
        self.first_bias = self._uniform(rng, 1 / (4 * EMBEDDING) ** 0.5, 1, HIDDEN)
        self.second = self._layer(rng, HIDDEN, HIDDEN)
        self.second_bias = self._uniform(rng, 1 / HIDDEN**0.5, 1, HIDDEN)

    def forward(self, codes: Tensor, sizes: Tensor) -> Tensor:
        """Predicted accuracies (E, n) of cells in int64 codes (n, b, 4).

        Of a cell's rows the first ``sizes`` (n,) count, the others are padding.
        """
        shares = token_shares(codes, sizes).expand(self.members, -1, -1)
        units = torch.cat(self.token_units(), dim=1)
        hidden = torch.baddbmm(self.first_bias, shares, units).relu()
        hidden = torch.baddbmm(self.second_bias, hidden, self.second).relu()
        return self.accuracy(hidden)

    def token_units(self) -> list[Tensor]:
        """What each token of the four columns adds to the first layer's units: (E, 6 or 8, H) each."""
        tables = (self.inputs, self.operations, self.inputs, self.operations)
        layers = torch.split(self.first, EMBEDDING, 1)
        return [torch.bmm(table, layer) for table, layer in zip(tables, layers, strict=True)]


def token_shares(codes: Tensor, sizes: Tensor) -> Tensor:
    """The share (n, 28) of a cell's blocks that has each token in each of the four columns.

    The first layer is linear in the mean of embeddings, and that in these: few numbers a cell, however wide
    embeddings are.
    """
    blocks = torch.arange(codes.shape[1], device=codes.device)
    share = (blocks < sizes[:, None]) / sizes[:, None]
    tokens = codes + torch.tensor(_FIRST_TOKENS, device=codes.device)
    shares = share.new_zeros(len(codes), sum(COLUMNS))
    return shares.scatter_add_(1, tokens.flatten(1), share[:, :, None].expand(-1, -1, 4).flatten(1))
