"""The population of evolution: who lives, and who becomes a parent."""

from __future__ import annotations

from collections import deque

import numpy as np

from pnas_fast.protocols import Objective, Trial


class Population:
    """The youngest ``size`` trials that did not fail.

    Args:
        size: members at most; the oldest goes first, however good it is.
        sample: members that compete to be a parent.
        objective: what they compete by; None for accuracy. Equals go by lower validation loss, then by age,
            the older first.
    """

    def __init__(self, size: int, sample: int, objective: Objective | None = None) -> None:
        self._alive = deque[Trial](maxlen=size)
        self._sample = sample
        self._objective = objective

    def __len__(self) -> int:
        """How many live."""
        return len(self._alive)

    def add(self, trial: Trial) -> None:
        """The next trial; one that failed, or has no value to compete by, neither enters nor ages anybody."""
        if trial.done and not np.isnan(self._rank(trial)[0]):
            self._alive.append(trial)

    def parent(self, rng: np.random.Generator) -> Trial:
        """The best of a sample drawn with replacement; there must be members."""
        rivals = rng.integers(len(self._alive), size=self._sample).tolist()
        return max((self._alive[rival] for rival in rivals), key=self._rank)

    def _rank(self, trial: Trial) -> tuple[float, float, int]:
        if self._objective is None:
            return trial.order
        value = self._objective.of(trial)
        return (value if self._objective.maximise else -value, *trial.order[1:])


def size_of(population: int, budget: int) -> int:
    """The size that is meant: as given, or for 0 a tenth of the budget, but 20 to 100."""
    return population or min(100, max(20, budget // 10))


def sample_of(sample: int, size: int) -> int:
    """The sample that is meant: as given, or for 0 a quarter of the population, but 2 at least."""
    return sample or max(2, size // 4)


def note_on_population(budget: int, population: int = 0) -> str | None:
    """A line for people where most of the budget goes to the random phase; None where it does not."""
    size = size_of(population, budget)
    if 2 * size <= budget:
        return None
    return (
        f"evolution: {min(size, budget)} of {budget} children are drawn at random before the first mutation; "
        f"a smaller population or a budget of {2 * size} and more leaves more to evolution"
    )
