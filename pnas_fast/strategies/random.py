"""Random search: every cell is drawn on its own, and nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import inf

import numpy as np

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Proposal, Trial
from pnas_fast.space import Cell
from pnas_fast.space.neighbours import draw
from pnas_fast.strategies.asked import Asked
from pnas_fast.strategies.budgeted import Budgeted
from pnas_fast.strategies.fitting import draw_fitting

STREAM = 1


class Random(Budgeted):
    """``budget`` cells, each drawn as `pnas_fast.space.neighbours.draw` does, none of them twice.

    All are proposed at once.

    Args:
        blocks: of each cell.
        operations: that cells are made of.
        budget: children to train.
        epochs: of each child.
        seed: of the draws, 0 or more.
        aims: whose limits cells are to keep, `pnas_fast.strategies.fitting.draw_fitting`.

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: the budget is less than 1.
    """

    def __init__(
        self, blocks: int, operations: Sequence[str], budget: int, epochs: int, seed: int,
        aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        super().__init__(budget)
        self._blocks, self._operations, self._aims = blocks, tuple(operations), aims
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
        cell = draw_new(self._blocks, self._operations, self._seed, self._asked, self._aims)
        return Proposal(cell, self._epochs)


def draw_new(blocks: int, operations: Sequence[str], seed: int, asked: Asked, aims: Aims) -> Cell:
    """The canonical cell that random search proposes after what was asked.

    Drawn again while it is one that was asked before or breaks a limit, as `draw_fitting` does.
    """
    rng = np.random.default_rng([seed, STREAM, len(asked)])
    canonical = lru_cache(maxsize=1)(Cell.canonical)
    return canonical(
        draw_fitting(
            lambda: draw(blocks, operations, rng),
            lambda cell: cell,
            lambda cell: canonical(cell) in asked,
            aims,
        )
    )
