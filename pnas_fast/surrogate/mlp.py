"""The MLP ensemble: size is handled by mean pooling over blocks (SPEC 2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pnas_fast.space import OPERATIONS
from pnas_fast.surrogate.members import EMBEDDING, HIDDEN, INPUTS, MemberModule


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
        tables = (self.inputs, self.operations, self.inputs, self.operations)
        # The mean of embeddings is the tokens' shares times their table: no embedding is ever copied.
        pooled = [
            torch.matmul(shares, table)
            for shares, table in zip(token_shares(codes, sizes), tables, strict=True)
        ]
        hidden = torch.baddbmm(self.first_bias, torch.cat(pooled, dim=2), self.first).relu()
        hidden = torch.baddbmm(self.second_bias, hidden, self.second).relu()
        return self.accuracy(hidden)


def token_shares(codes: Tensor, sizes: Tensor) -> list[Tensor]:
    """For each of the four columns, the share (n, tokens) of a cell's blocks that has each token there."""
    blocks = torch.arange(codes.shape[1], device=codes.device)
    share = (blocks < sizes[:, None]) / sizes[:, None]
    tokens = (INPUTS, len(OPERATIONS), INPUTS, len(OPERATIONS))
    return [
        (one_hot(codes[:, :, column], count) * share[:, :, None]).sum(1)
        for column, count in enumerate(tokens)
    ]
