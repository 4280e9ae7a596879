"""The cell that a run chooses: by the mean of trainings that took no part in finding it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Trial
from pnas_fast.space import Cell


@dataclass(frozen=True, slots=True)
class Finalist:
    """A cell of the final choice.

    Attributes:
        found: the search's own best trial of it.
        finals: its final trainings that did not fail, at least one.
        violation: by how much it breaks the search's limits, `Aims.violation`.
    """

    found: Trial
    finals: tuple[Trial, ...]
    violation: float = 0.0

    @property
    def cell(self) -> Cell:
        """The cell, canonical."""
        return self.finals[0].cell

    def mean(self, name: str = "accuracy") -> float:
        """The mean of a value over the final trainings; NaN where one lacks it."""
        return fmean(trial.value(name) for trial in self.finals)

    def standard_error(self, name: str, images: str) -> float:
        """Of `mean`, for an accuracy: what training anew and other images would change.

        ``√(s²/R + p(1−p)/n)``, with the standard deviation s over R trainings, the mean p, and n images, as
        the value ``images`` says. Where the trainings know an error of their own, as ``accuracy_error``, the
        square of its mean stands in the second one's place. NaN where a training lacks something, or n is
        unknown; of a single training s counts as 0.
        """
        values = [trial.value(name) for trial in self.finals]
        p, n = fmean(values), self.finals[0].value(images)
        between = stdev(values) ** 2 / len(values) if len(values) > 1 else 0.0
        own = self.mean(f"{name}_error")
        return math.sqrt(between + (own**2 if own == own else p * (1 - p) / n))

    @property
    def order(self) -> tuple[float, float, float, int]:
        """Of two finalists the better has the greater.

        Who keeps limits goes first, then mean accuracy, then mean loss, then who led before.
        """
        loss = self.mean("validation_loss")
        return -self.violation, self.mean(), -loss if loss == loss else -math.inf, -self.finals[0].number

    @property
    def best(self) -> Trial:
        """The final training whose weights are kept: that with the greatest `Trial.order`."""
        return max(self.finals, key=lambda trial: trial.order)


@dataclass(frozen=True, slots=True)
class Choice:
    """A final choice, the best finalist first, and those that keep limits before others.

    Attributes:
        finalists: those with a final training that did not fail.
        is_longer: whether final trainings took other epochs than the search's, so that they do not compare.
    """

    finalists: Sequence[Finalist]
    is_longer: bool

    @property
    def chosen(self) -> Finalist:
        """The one with the best mean."""
        return self.finalists[0]

    @property
    def optimism(self) -> float:
        """How much too high the search's number of its own favourite was, in accuracy; NaN if longer."""
        if self.is_longer:
            return math.nan
        favourite = max(self.finalists, key=lambda one: (-one.violation, *one.found.order))
        return favourite.found.accuracy - favourite.mean()


def split(trials: Iterable[Trial]) -> tuple[list[Trial], list[Trial]]:
    """The search's trials, and the final trainings."""
    search, finals = list[Trial](), list[Trial]()
    for trial in trials:
        (finals if trial.proposal.is_final else search).append(trial)
    return search, finals


def planned_finals(trials: Iterable[Trial], cells: int, replicas: int) -> int:
    """Final trainings that there will be after a search's ``trials``."""
    return replicas * min(cells, len({trial.cell.canonical() for trial in trials if trial.done}))


def choose(
    trials: Sequence[Trial], finals: Sequence[Trial], cells: int, replicas: int, aims: Aims = ACCURACY_ALONE
) -> Choice | None:
    """The final choice; None where final trainings are missing, or all failed.

    Nothing of test images is looked at.

    Args:
        trials: the search's.
        finals: the final trainings so far.
        cells: finalists that were asked for.
        replicas: final trainings of each.
        aims: of the search.
    """
    if not finals or len(finals) < planned_finals(trials, cells, replicas):
        return None
    done: dict[Cell, list[Trial]] = {}
    for trial in finals:
        if trial.done:
            done.setdefault(trial.cell.canonical(), []).append(trial)
    found: dict[Cell, Trial] = {}
    for trial in sorted((trial for trial in trials if trial.done), key=lambda trial: trial.order):
        found[trial.cell.canonical()] = trial
    finalists = [
        Finalist(found[cell], tuple(own), aims.violation(cell)) for cell, own in done.items() if cell in found
    ]
    if not finalists:
        return None
    finalists.sort(key=lambda finalist: finalist.order, reverse=True)
    longer = finalists[0].finals[0].proposal.budget != finalists[0].found.proposal.budget
    return Choice(finalists, longer)


def best_of(trials: Iterable[Trial], cells: int, replicas: int, aims: Aims = ACCURACY_ALONE) -> Trial | None:
    """The trial whose weights a run keeps: of the chosen cell, or where none is chosen, the search's best."""
    search, finals = split(trials)
    choice = choose(search, finals, cells, replicas, aims)
    if choice is not None:
        return choice.chosen.best
    return max((trial for trial in search if trial.done), key=aims.rank, default=None)
