"""Scoring candidates with the LSTM ensemble, each distinct prefix once.

A gate is ``token's part + recurrence · h``: the first is a table look-up, the second belongs to the
prefix and is shared by all tokens that may follow it. So the last token, of which there are as many as
candidates, costs no matrix product at all: an addition, the gates' non-linearities and the read-out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pnas_fast.space import Codes
from pnas_fast.surrogate.chunked import score_chunks
from pnas_fast.surrogate.lstm import LSTMEnsemble
from pnas_fast.surrogate.members import HIDDEN
from pnas_fast.surrogate.prefix_tree import Branches, Chunk, last_block_tree

# Candidates, and prefixes of their last token, worked on at once: few enough on a CPU that what
# one operation writes is still in the cache for the next, enough on a GPU to fill it.
ROWS = {"cpu": 8192, "cuda": 131072}
PREFIXES = {"cpu": 64, "cuda": 4096}


class _Cell:
    """The ensemble's LSTM cell, rearranged so that σ is its only non-linearity.

    ``tanh(x) = 1 - 2σ(-2x)``, and torch's σ is several times faster than its tanh. The factor -2 of the
    candidate gate is folded into ``recurrence`` (E, H, 4H) and the two ``tables`` (E, tokens, 4H).
    """

    def __init__(self, model: LSTMEnsemble) -> None:
        factor = torch.ones(4 * HIDDEN, device=model.bias.device)
        factor[2 * HIDDEN : 3 * HIDDEN] = -2
        self.recurrence = model.recurrence * factor
        self.tables = tuple(table * factor for table in model.token_gates())

    def step(self, gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden and memory state from gates (..., 4H), which are overwritten."""
        admit, keep, candidate, show = gates.sigmoid_().chunk(4, dim=-1)
        memory = torch.addcmul(admit, admit, candidate, value=-2).addcmul_(keep, memory)
        return torch.addcmul(show, show, (memory * -2).sigmoid_(), value=-2), memory

    def branch(
        self, gates_above: Tensor, memory_above: Tensor, branches: Branches, table: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The states (E, n, H) of branches, given ``recurrence · h`` and memory of the nodes above."""
        gates = gates_above.index_select(1, branches.above)
        gates += table.index_select(1, branches.token)
        return self.step(gates, memory_above.index_select(1, branches.above))


def score_lstm(model: LSTMEnsemble, codes: Codes) -> Tensor:
    """Predicted accuracies float32 (E, M) of candidates in int8 codes (M, b, 4), as `model` gives them."""
    cell = _Cell(model)
    rows = ROWS[model.bias.device.type]
    return score_chunks(model, codes, rows, lambda chunk: _score_chunk(model, cell, chunk))


def _score_chunk(model: LSTMEnsemble, cell: _Cell, chunk: Chunk) -> Tensor:
    hidden, memory = _parent_states(model, cell, chunk.parents)
    (first, second, third), candidate = last_block_tree(chunk)
    for depth, branches in enumerate((first, second)):
        gates = torch.bmm(hidden, cell.recurrence)
        hidden, memory = cell.branch(gates, memory, branches, cell.tables[depth])
    operations, operation = torch.unique(chunk.block[:, 3], return_inverse=True)
    leaves = _leaf_scores(model, cell, (hidden, memory), third, operations)
    return leaves.index_select(1, candidate * len(operations) + operation)


def _parent_states(model: LSTMEnsemble, cell: _Cell, parents: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and memory state (E, P, H) after all tokens of parents (P, b-1, 4)."""
    hidden = memory = model.bias.new_zeros((model.members, len(parents), HIDDEN))
    for position, tokens in enumerate(parents.flatten(1).unbind(1)):
        gates = cell.tables[position % 2].index_select(1, tokens).baddbmm_(hidden, cell.recurrence)
        hidden, memory = cell.step(gates, memory)
    return hidden, memory


def _leaf_scores(
    model: LSTMEnsemble,
    cell: _Cell,
    states: tuple[Tensor, Tensor],
    third: Branches,
    operations: Tensor,
) -> Tensor:
    """Predictions (E, n·o): each of the ``third`` branches (n,) followed by each of ``operations`` (o,).

    ``states`` are the hidden and memory states of (in1, op1). A few of these leaves are no candidates
    (sides are sorted), but a dense grid needs no gathering.
    """
    table = cell.tables[1].index_select(1, operations)[:, None]
    gates_above = torch.bmm(states[0], cell.recurrence)
    size = PREFIXES[table.device.type]
    scores = table.new_empty((model.members, len(third.token), len(operations)))
    for start in range(0, len(third.token), size):
        part = slice(start, start + size)
        some = Branches(third.above[part], third.token[part])
        hidden, memory = cell.branch(gates_above, states[1], some, cell.tables[0])
        gates = torch.bmm(hidden, cell.recurrence)[:, :, None] + table
        hidden, _ = cell.step(gates, memory[:, :, None])
        scores[:, part] = model.accuracy(hidden.flatten(1, 2)).view_as(scores[:, part])
    return scores.flatten(1)
