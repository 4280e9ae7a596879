"""Pareto fronts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pnas_fast.protocols import Trial


def pareto_front(trials: Iterable[Trial], cost: Callable[[Trial], float]) -> list[Trial]:
    """The trials that no other beats: none costs as little and is as accurate, better in one of the two.

    Returned from the cheapest to the most accurate; of trials equal in both, the earliest. A trial whose
    cost or accuracy is NaN is on no front.
    """
    known = [trial for trial in trials if cost(trial) == cost(trial) and trial.accuracy == trial.accuracy]
    front: list[Trial] = []
    for trial in sorted(known, key=lambda trial: (cost(trial), -trial.accuracy, trial.number)):
        if not front or trial.accuracy > front[-1].accuracy:
            front.append(trial)
    return front
