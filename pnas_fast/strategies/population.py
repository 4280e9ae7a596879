"""The population of evolution: who lives, and who becomes a parent."""

from __future__ import annotations

from collections import deque

import numpy as np

from pnas_fast.objectives import Accuracy
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.objectives.dominance import first_layers, least_crowded
from pnas_fast.protocols import Objective, Trial


class Population:
    """The youngest ``size`` trials that did not fail.

    Args:
        size: members at most; the oldest goes first, however good it is.
        sample: members that compete to be a parent.
        objective: what they compete by; None for accuracy. Equals go by lower validation loss, then by age,
            the older first.
        aims: with limits, who keeps them goes before who breaks them, and who breaks them less before who
            breaks them more. With costs, too, members that keep them go by non-dominated layers of accuracy
            and costs, in a layer by crowding distance (Deb et al., NSGA-II, 2002), then by age.
    """

    def __init__(
        self, size: int, sample: int, objective: Objective | None = None, aims: Aims = ACCURACY_ALONE
    ) -> None:
        self._alive = deque[Trial](maxlen=size)
        self._sample = sample
        self._objective = objective
        self._aims = aims
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        """How many live."""
        return len(self._alive)

    def add(self, trial: Trial) -> None:
        """The next trial; one that failed, or has no value to compete by, neither enters nor ages anybody."""
        if trial.done and not any(np.isnan(value) for value in self._competing(trial)):
            self._alive.append(trial)
            self._places = {}

    def parent(self, rng: np.random.Generator) -> Trial:
        """The best of a sample drawn with replacement; there must be members."""
        rivals = rng.integers(len(self._alive), size=self._sample).tolist()
        return max((self._alive[rival] for rival in rivals), key=self._rank)

    def _competing(self, trial: Trial) -> list[float]:
        """What it competes by."""
        return [(self._objective or Accuracy()).of(trial), *(cost.of(trial) for cost in self._aims.costs)]

    def _rank(self, trial: Trial) -> tuple[float, ...]:
        if self._aims.costs:
            self._places = self._places or self._sorted()
            return (-self._places[trial.number],)
        if self._objective is None:
            return self._aims.rank(trial)
        value = self._objective.of(trial)
        return (value if self._objective.maximise else -value, *trial.order[1:])

    def _sorted(self) -> dict[int, int]:
        """Each member's place among all, 0 being the best, by its number."""
        fit = self._aims.feasible(self._alive)
        points, ages = self._aims.points(fit), np.array([trial.number for trial in fit], np.uint64)
        order = list[int]()
        if fit:
            members, layers = first_layers(points, len(fit))
            for layer in range(int(layers.max()) + 1):
                own = members[layers == layer]
                order += ages[own][least_crowded(points[own], ages[own])].tolist()
        kept = set(order)
        others = [trial for trial in self._alive if trial.number not in kept]
        order += [trial.number for trial in sorted(others, key=self._aims.rank, reverse=True)]
        return {number: place for place, number in enumerate(order)}


def size_of(population: int, budget: int) -> int:
    """The size that is meant: as given, or for 0 a tenth of the budget, but 20 to 100."""
    return population or min(100, max(20, budget // 10))


def sample_of(sample: int, size: int, *, several: bool = False) -> int:
    """The sample that is meant: as given, or for 0 a quarter of the population, but 2 at least.

    With ``several`` objectives 0 is 2, as in NSGA-II: most members of a small population lie on its front.
    """
    return sample or (2 if several else max(2, size // 4))


def note_on_population(budget: int, population: int = 0) -> str | None:
    """A line for people where most of the budget goes to the random phase; None where it does not."""
    size = size_of(population, budget)
    if 2 * size <= budget:
        return None
    return (
        f"evolution: {min(size, budget)} of {budget} children are drawn at random before the first mutation; "
        f"a smaller population or a budget of {2 * size} and more leaves more to evolution"
    )
