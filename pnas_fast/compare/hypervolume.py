"""Hypervolume against children trained: how good the fronts of searches for several objectives are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pnas_fast.compare.curves import Floats
from pnas_fast.objectives.additive import AdditiveCost
from pnas_fast.objectives.aims import Aims
from pnas_fast.protocols import Cost, Trial
from pnas_fast.runs.record import RunRecord
from pnas_fast.space import OPERATIONS


def shared_reference(records: Sequence[RunRecord]) -> Floats | None:
    """Where all runs' hypervolumes are measured from; None where they are not after the same.

    Of a cost without a limit it is the most that a cell of any run's space costs.
    """
    first = records[0].aims
    told = _told(first)
    if not first.costs or any(_told(record.aims) != told for record in records):
        return None
    spaces = [first.reference(_blocks(record), _operations(record)) for record in records]
    reference: Floats = np.max(spaces, axis=0)
    return reference


def hypervolume_curve(trials: Iterable[Trial], aims: Aims, reference: Floats) -> Floats:
    """The hypervolume of the first n trials, n = 1 … N: `Aims.hypervolume`, which never falls."""
    front, value, found = list[Trial](), 0.0, list[float]()
    for trial in trials:
        if trial.done and not aims.violation(trial.cell):
            grown = aims.front([*front, trial])
            if trial in grown:
                front, value = grown, aims.hypervolume(grown, reference)
        found.append(value)
    return np.array(found)


def _told(aims: Aims) -> list[Any]:
    """What two runs have in common that are after the same."""
    costs = [*aims.costs, *(cost for cost, _ in aims.limits)]
    return [*map(_values, costs), len(aims.costs), *(bound for _, bound in aims.limits)]


def _values(cost: Cost) -> Any:
    return cost.values() if isinstance(cost, AdditiveCost) else cost


def _blocks(record: RunRecord) -> int:
    blocks = record.config.get("blocks")
    return blocks if isinstance(blocks, int) else max(len(trial.cell) for trial in record.trials)


def _operations(record: RunRecord) -> Sequence[str]:
    operations = record.config.get("operations")
    return operations if isinstance(operations, list) else OPERATIONS
