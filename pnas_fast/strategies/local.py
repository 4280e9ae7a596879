"""Local search: whatever is better becomes the cell whose neighbours are tried (White et al., UAI 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from pnas_fast.counting import count_distinct
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims, Rank
from pnas_fast.protocols import Proposal, StrategyError, Trial
from pnas_fast.space import Cell
from pnas_fast.space.neighbours import neighbours
from pnas_fast.strategies.budgeted import Budgeted
from pnas_fast.strategies.keyed import generator_of
from pnas_fast.strategies.random import draw_new

STREAM = 3
RANDOM = 10
"""Cells drawn before the search begins at the best of them."""


class Local(Budgeted):
    """Local search by first improvement, with a fixed lag; no cell is proposed twice.

    The first `RANDOM` proposals are random search's. Each later one is a neighbour of the centre, in a random
    order that belongs to the centre. A result that is better than the centre is the new centre. A centre
    without neighbours that are new gives way to the best result that has not been a centre, or, where all
    have, to the best centre that was left early; failed ones are the worst. Where nothing that is known has
    a new neighbour, a cell is drawn.

    Proposal i sees the results 0 … i − lag − 1. So up to ``lag`` neighbours of a centre are out when it is
    left; their results count like any other.

    With limits, whoever keeps them is better than who does not, and who breaks them less than who breaks
    them more; of the centre's neighbours those are proposed that keep them, or break them less than it does.

    Args:
        blocks: of each cell.
        operations: that cells are made of.
        budget: children to train, failed ones included; a space of fewer cells is trained whole.
        epochs: of each child.
        seed: of all draws, 0 or more.
        lag: results that a proposal does not wait for.
        aims: whose limits count; its costs do not.

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: a budget less than 1, or a lag less than 0.
    """

    def __init__(
        self, blocks: int, operations: Sequence[str], budget: int, epochs: int, seed: int, lag: int = 16,
        aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        if lag < 0:
            raise StrategyError(f"lag {lag}, allowed is 0 and more")
        super().__init__(min(budget, count_distinct(blocks, operations)))
        self._blocks, self._operations, self._aims = blocks, tuple(operations), aims
        self._epochs, self._seed, self._lag = epochs, seed, lag
        self._centre: Trial | None = None
        self._ahead = list[Cell]()  # the centre's neighbours, the next one last
        self._open = list[Trial]()  # all results but those whose neighbours are known to be used up
        self._expanded = set[int]()
        self._advance(told=0)

    def tell(self, trial: Trial) -> None:
        """A trial that is better than the centre becomes it, and the next proposal is made.

        Raises:
            StrategyError: too many children failed one after another.
        """
        super().tell(trial)
        self._open.append(trial)
        if self._centre is None or self._rank(trial) > self._rank(self._centre):
            self._move(trial)
        self._advance(told=trial.number + 1)

    def _advance(self, told: int) -> None:
        """Propose all that may see just what was told."""
        self._fill(max(RANDOM, told + self._lag + 1), self._propose)

    def _propose(self) -> Proposal | None:
        """The next proposal; None where only a result that is still out could lead to a new cell."""
        if len(self._asked) < RANDOM:
            return self._drawn() or self._neighbour()
        return self._neighbour() or self._drawn()

    def _drawn(self) -> Proposal | None:
        cell = draw_new(self._blocks, self._operations, self._seed, self._asked, self._aims)
        return None if cell in self._asked else Proposal(cell, self._epochs)

    def _neighbour(self) -> Proposal | None:
        """The centre's next new neighbour, after moving the centre to where there is one."""
        while self._centre is not None:
            violation = self._aims.violation(self._centre.cell)
            while self._ahead:
                cell = self._ahead.pop()
                if cell not in self._asked and self._aims.may_follow(cell, violation):
                    self._expanded.add(self._centre.number)
                    return Proposal(cell, self._epochs, note={"parent": self._centre.number})
            self._open.remove(self._centre)
            self._move(max(self._open, key=self._promise, default=None))
        return None

    def _promise(self, trial: Trial) -> tuple[bool, Rank]:
        return trial.number not in self._expanded, self._rank(trial)

    def _rank(self, trial: Trial) -> Rank:
        """`Aims.rank`, in which what has no accuracy comes last."""
        if isnan(trial.accuracy):
            return (float("-inf"), float("-inf"), 0.0, -trial.number)
        return self._aims.rank(trial)

    def _move(self, centre: Trial | None) -> None:
        self._centre, self._ahead = centre, []
        if centre is not None:
            around = neighbours(centre.cell, self._operations)
            order = generator_of(centre.cell, self._seed, STREAM).permutation(len(around))
            self._ahead = [around[index] for index in reversed(order)]
