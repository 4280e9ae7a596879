"""What a strategy has proposed, and what is left of its budget."""

from __future__ import annotations

from collections import Counter

from pnas_fast.protocols import Proposal, StrategyError, Trial
from pnas_fast.space import Cell

MOST_ASKED = 3
"""Times the budget: so many proposals end a search that only finds what it has seen."""


class Asked:
    """All proposals so far.

    The budget is of children trained: proposals that differ in the canonical cell or in the replica. One that
    was made before is answered from memory and does not count, but for `MOST_ASKED`.

    Args:
        budget: children to train.

    Raises:
        StrategyError: the budget is less than 1.
    """

    def __init__(self, budget: int) -> None:
        if budget < 1:
            raise StrategyError(f"budget {budget}, allowed is 1 and more")
        self._budget = budget
        self._proposed = list[tuple[Cell, int]]()
        self._times = Counter[tuple[Cell, int]]()

    def __len__(self) -> int:
        """How many there are, which is the number of the next."""
        return len(self._proposed)

    def __contains__(self, cell: object) -> bool:
        """Whether a canonical cell is among them."""
        return (cell, 0) in self._times

    def replicas(self, cell: Cell) -> int:
        """How often a canonical cell is among them, as replicas 0, 1, …: the next replica."""
        replica = 0
        while (cell, replica) in self._times:
            replica += 1
        return replica

    @property
    def open(self) -> bool:
        """Whether there may be another."""
        return len(self._times) < self._budget and len(self) < MOST_ASKED * self._budget

    @property
    def planned(self) -> int:
        """How many there will be, if what follows is new."""
        repeats = len(self) - len(self._times)
        return min(self._budget + repeats, MOST_ASKED * self._budget)

    def add(self, proposal: Proposal) -> None:
        """The next proposal."""
        key = _key(proposal)
        self._proposed.append(key)
        self._times[key] += 1

    def tell(self, trial: Trial) -> None:
        """What really stood in a proposal's place takes it."""
        old, new = self._proposed[trial.number], _key(trial.proposal)
        if old != new:
            self._proposed[trial.number] = new
            self._times[new] += 1
            self._times[old] -= 1
            if not self._times[old]:
                del self._times[old]


def _key(proposal: Proposal) -> tuple[Cell, int]:
    return proposal.cell.canonical(), proposal.replica
