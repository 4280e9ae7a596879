"""All trials as a table: what the page shows, searches and sorts, and ``trials.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pnas_fast.protocols import Trial
from pnas_fast.report.cost import Cost, costs_of
from pnas_fast.report.text import number
from pnas_fast.report.view import VALIDATION_IMAGES, RunView

BALANCED = ("balanced_accuracy", "test_balanced_accuracy")
"""Values that the table shows where classes are unbalanced; else they say what accuracies say."""

_KNOWN = {
    "parameters": ("parameters", "count"),
    "multiply_adds": ("multiply-adds", "magnitude"),
    "seconds": ("time", "duration"),
}
"""Values of this project's own evaluator that the table shows: their label and kind."""

_NOT_SHOWN = {
    "accuracy", "loss", "validation_loss", "images_seen", "images_per_second", "evaluation_seconds",
    "waiting_seconds", "memory", VALIDATION_IMAGES,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: ``kind`` says how its values are written, ``of`` gives a trial's or None."""

    label: str
    kind: str
    of: Callable[[Trial], Any]


@dataclass(frozen=True, slots=True)
class TrialTable:
    """The columns that this run has values for, and its trials: the best first, failed ones last.

    Failed trials have no rank, and neither have those that ask for an earlier trial's measurement again.
    """

    columns: list[Column]
    trials: list[Trial]

    @property
    def values(self) -> dict[str, Any]:
        """For the page's script: the columns, and each trial's values in their order."""
        columns = [{"label": column.label, "kind": column.kind} for column in self.columns]
        rows = [[_short(column.of(trial)) for column in self.columns] for trial in self.trials]
        return {"columns": columns, "rows": rows}


def trial_table(view: RunView) -> TrialTable:
    """The table of a run's trials."""
    ranks = {trial.number: rank for rank, trial in enumerate(view.ranked, start=1)}
    trials = sorted(
        view.record.trials, key=lambda trial: ranks.get(trial.number, len(ranks) + 1 + trial.number)
    )
    columns = [
        Column("rank", "count", lambda trial: ranks.get(trial.number)),
        Column("accuracy", "accuracy", lambda trial: _accuracy(view, trial)),
        Column("cell", "cell", lambda trial: str(trial.cell)),
        Column(view.grouping, "count", view.group_number),
    ]
    if len({trial.proposal.budget for trial in trials}) > 1:
        columns.append(Column("budget", "count", lambda trial: trial.proposal.budget))
    if any(trial.proposal.replica for trial in trials):
        columns.append(Column("replica", "count", lambda trial: trial.proposal.replica))
    names = {name for trial in trials for name in trial.measurement.values}
    images = view.record.images
    hidden = _NOT_SHOWN | (set() if images is None or images.is_unbalanced else set(BALANCED))
    others = {name: (name, "plain") for name in sorted(names - set(_KNOWN) - hidden)}
    columns += [
        Column(label, kind, _value_of(name))
        for name, (label, kind) in {**_KNOWN, **others}.items()
        if name in names
    ]
    columns += [
        Column(f"{cost.name}, deployed", cost.kind, _known(cost)) for cost in costs_of(view) if cost.known
    ]
    return TrialTable([*columns, Column("number", "count", lambda trial: trial.number)], trials)


def _short(value: Any) -> Any:
    """A value in as many figures as anybody reads."""
    if isinstance(value, list):
        return [_short(part) for part in value]
    return float(f"{value:.6g}") if isinstance(_exact(value), float) else _exact(value)


def _known(cost: Cost) -> Callable[[Trial], float | None]:
    return lambda trial: number(cost.of(trial))


def _value_of(name: str) -> Callable[[Trial], float | None]:
    return lambda trial: number(trial.value(name))


def _accuracy(view: RunView, trial: Trial) -> list[Any]:
    """Accuracy, its standard error and, of a failed trial, the reason."""
    return [number(trial.accuracy), view.standard_error(trial), trial.measurement.error]


def trials_csv(view: RunView) -> str:
    """All trials in order of number, a row each, with all that was measured and noted about them."""
    trials = view.record.trials
    values = sorted({name for trial in trials for name in trial.measurement.values} - {"accuracy"})
    notes = sorted({name for trial in trials for name in trial.proposal.note})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ["number", "cell", "budget", "replica", "status", "accuracy", "standard_error"]
    costs = view.record.costs
    told = [*(f"deployed.{name}" for name in costs), *(f"note.{name}" for name in notes)]
    writer.writerow([*fixed, *values, *told, "device", "error"])
    for trial in trials:
        proposal, measurement = trial.proposal, trial.measurement
        row = [trial.number, trial.cell, proposal.budget, proposal.replica, measurement.status]
        row += [_exact(number(trial.accuracy)), _exact(view.standard_error(trial))]
        row += [_exact(measurement.values.get(name)) for name in values]
        row += [_exact(float(cost.before(trial.cell.codes[np.newaxis])[0])) for cost in costs.values()]
        row += [_exact(proposal.note.get(name)) for name in notes]
        writer.writerow([*row, measurement.device, measurement.error])
    return text.getvalue()


def _exact(value: Any) -> Any:
    """A value as it is stored; whole numbers without a decimal point, none as nothing."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
