"""Random search: every cell is drawn on its own, and nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from pnas_fast.protocols import Proposal, Trial
from pnas_fast.space import Cell
from pnas_fast.space.neighbours import draw
from pnas_fast.strategies.asked import Asked
from pnas_fast.strategies.budgeted import Budgeted

STREAM = 1
TRIES = 100
"""Cells drawn for one proposal, while they were proposed before; the last is taken whatever it is."""


class Random(Budgeted):
    """``budget`` cells, each drawn as `pnas_fast.space.neighbours.draw` does, none of them twice.

    All are proposed at once.

    Args:
        blocks: of each cell.
        operations: that cells are made of.
        budget: children to train.
        epochs: of each child.
        seed: of the draws, 0 or more.

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: the budget is less than 1.
    """

    def __init__(self, blocks: int, operations: Sequence[str], budget: int, epochs: int, seed: int) -> None:
        super().__init__(budget)
        self._blocks, self._operations = blocks, tuple(operations)
        self._epochs, self._seed = epochs, seed
        self._fill(inf, self._propose)

    def tell(self, trial: Trial) -> None:
        """A trial; where it stands for another one, there may be more to propose.

        Raises:
            StrategyError: too many children failed one after another.
        """
        super().tell(trial)
        self._fill(inf, self._propose)

    def _propose(self) -> Proposal:
        return Proposal(draw_new(self._blocks, self._operations, self._seed, self._asked), self._epochs)


def draw_new(blocks: int, operations: Sequence[str], seed: int, asked: Asked) -> Cell:
    """The canonical cell that random search proposes after what was asked.

    Drawn again, `TRIES` times at most, while it is one that was asked before.
    """
    rng = np.random.default_rng([seed, STREAM, len(asked)])
    for _ in range(TRIES):
        cell = draw(blocks, operations, rng).canonical()
        if cell not in asked:
            break
    return cell
