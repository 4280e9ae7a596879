"""The final choice: the best cells of a search, trained again with fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Emit, Noted, Proposal, Strategy, Trial
from pnas_fast.protocols.values import FINAL

FIRST_REPLICA = 1_000_000
"""Of final trainings: beyond all replicas that a search makes, so that none is a training it has seen."""


class Finalists:
    """A strategy, and after its end ``cells`` of its best ones, each trained ``replicas`` times more.

    The highest of hundreds of accuracies is too high: what is greatest was lucky, too. Fresh seeds are not
    chosen by, so the mean of a cell's final trainings is what it is worth, and the best mean decides
    (`pnas_fast.runs.choice`). The searching strategy hears nothing of them.

    Finalists are the best distinct cells by `Aims.rank`: those that keep limits first, then by accuracy;
    fewer where fewer finished.

    Args:
        search: the strategy that finds them.
        cells: how many finalists, 1 or more.
        replicas: final trainings of each, 1 or more.
        epochs: of a final training.
        emit: is told when final trainings begin.
        aims: of the search.
    """

    def __init__(
        self, search: Strategy, cells: int, replicas: int, epochs: int, emit: Emit = lambda event: None,
        aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        self._search, self._emit, self._aims = search, emit, aims
        self._cells, self._replicas, self._epochs = cells, replicas, epochs
        self._told = list[Trial]()
        self._asked, self._finals = 0, 0

    @property
    def planned(self) -> int:
        """How many proposals there will be, as far as is known."""
        return self._search.planned + (self._finals or self._cells * self._replicas)

    def ask(self) -> Sequence[Proposal]:
        """What the search asks for; the final trainings, once, when it asks for no more and all is told."""
        if self._finals:
            return []
        asked = self._search.ask()
        if not asked and len(self._told) == self._asked:
            asked = self._propose()
            self._finals = len(asked)
        self._asked += len(asked)
        return asked

    def tell(self, trial: Trial) -> None:
        """Tell the search, unless it is a final training.

        Raises:
            StrategyError: the search cannot go on.
        """
        if not self._finals:
            self._told.append(trial)
            self._search.tell(trial)

    def _propose(self) -> list[Proposal]:
        ranked = sorted((trial for trial in self._told if trial.done), key=self._aims.rank)
        best = list(dict.fromkeys(trial.cell.canonical() for trial in reversed(ranked)))[: self._cells]
        count = len(best) * self._replicas
        if count:
            self._emit(Noted("final", {"cells": len(best), "children": count}))
        return [
            Proposal(cell, self._epochs, FIRST_REPLICA + replica, {FINAL: rank})
            for rank, cell in enumerate(best, 1)
            for replica in range(self._replicas)
        ]
