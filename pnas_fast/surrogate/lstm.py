"""The LSTM ensemble: size is handled by unrolling over the cell's 4b tokens (docs/method.md, 2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pnas_fast.surrogate.members import EMBEDDING, HIDDEN, MemberModule


class LSTMEnsemble(MemberModule):
    """One LSTM layer over in1, op1, in2, op2 of each block in turn; the last hidden state is read out.

    Gates are held in the order input, forget, candidate, output: ``c' = σ(f)·c + σ(i)·tanh(g)``,
    ``h' = σ(o)·tanh(c')``.

    Args:
        members: E, the number of networks held side by side.
        rng: draws the initial weights.
    """

    def __init__(self, members: int, rng: np.random.Generator) -> None:
        super().__init__(members, rng)
        self.projection = self._layer(rng, EMBEDDING, 4 * HIDDEN)
        self.recurrence = self._layer(rng, HIDDEN, 4 * HIDDEN)
        self.bias = self._uniform(rng, 1 / HIDDEN**0.5, 1, 4 * HIDDEN)

    def forward(self, codes: Tensor, sizes: Tensor) -> Tensor:
        """Predicted accuracies (E, n) of cells in int64 codes (n, b, 4), larger cells first.

        Of a cell's rows the first ``sizes`` (n,) count, the others are padding.
        """
        tables = self.token_gates()
        hidden = memory = self.bias.new_zeros((self.members, len(codes), HIDDEN))
        finished = []
        for block in range(codes.shape[1]):
            running = int((sizes > block).sum())
            finished.append(hidden[:, running:])
            hidden, memory = hidden[:, :running], memory[:, :running]
            if not running:
                break
            for column in range(4):
                gates = tables[column % 2].index_select(1, codes[:running, block, column])
                hidden, memory = self.step(gates, hidden, memory)
        return self.accuracy(torch.cat([hidden, *reversed(finished)], dim=1))

    def token_gates(self) -> tuple[Tensor, Tensor]:
        """What each input (E, 6, 4H) and each operation (E, 8, 4H) adds to the gates, bias included."""
        return (
            torch.baddbmm(self.bias, self.inputs, self.projection),
            torch.baddbmm(self.bias, self.operations, self.projection),
        )

    def step(self, token: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """One step from states (E, n, H) on what the tokens add to the gates (E, n, 4H)."""
        gates = torch.baddbmm(token, hidden, self.recurrence)
        admit, keep, candidate, show = gates.chunk(4, dim=2)
        memory = keep.sigmoid() * memory + admit.sigmoid() * candidate.tanh()
        return show.sigmoid() * memory.tanh(), memory
