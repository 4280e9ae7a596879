"""Runs as they are compared: by strategy, with what is told of a cell and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, nan
from pathlib import Path
from statistics import fmean

import numpy as np

from pnas_fast.compare.curves import MOST, Floats, at_costs, cost_grid, top_curves
from pnas_fast.compare.hypervolume import hypervolume_curve, shared_reference
from pnas_fast.evaluation.table import Table
from pnas_fast.protocols import Trial
from pnas_fast.report.text import number
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.record import RunRecord
from pnas_fast.search.config import TABLE
from pnas_fast.search.strategy_options import STRATEGIES

AXES = ("cells", "images", "seconds")
"""What a search is paid in."""

TEST = "test_accuracy"


@dataclass(frozen=True, slots=True)
class Measure:
    """What is told of a cell: its name in files, what people call it, and where it is from."""

    name: str
    title: str
    of: Callable[[Trial], float]


class Truth:
    """What a table knows of every cell: the mean over its replicas, of test accuracies where it has them.

    Args:
        table: opened.
        budget: epochs after which.
    """

    def __init__(self, table: Table, budget: int) -> None:
        replicas = table.replicas(budget)
        done = {cell: [one for one in found if one.done] for cell, found in replicas.items()}
        self.has_test = all(TEST in one.values for found in done.values() for one in found)
        name = TEST if self.has_test else "accuracy"
        self._means = {
            cell: fmean(one.values[name] for one in found) for cell, found in done.items() if found
        }
        self._sorted = np.sort(list(self._means.values()))
        self.replicas = max((len(found) for found in replicas.values()), default=0)

    def __len__(self) -> int:
        """How many cells have an accuracy."""
        return len(self._sorted)

    def of(self, trial: Trial) -> float:
        """The true accuracy of a trial's cell; NaN for one that the table lacks."""
        return self._means.get(str(trial.cell.canonical()), nan)

    @property
    def best(self) -> float:
        """That of the best cell."""
        return float(self._sorted[-1])

    def rank(self, accuracy: float) -> float:
        """The share of cells that are better, in [0, 1)."""
        return float((self._sorted > accuracy + 1e-12).mean())

    def best_share(self, share: float) -> float:
        """The least accuracy among so large a share of the best cells, which is one cell at least."""
        return float(self._sorted[-max(1, ceil(share * len(self)))])


class ComparedRun:
    """One run: what it trained, in the order of its proposals, and what that cost."""

    def __init__(self, record: RunRecord, measures: Sequence[Measure]) -> None:
        self.record = record
        self.curves = top_curves(record.distinct, [measure.of for measure in measures])

    @property
    def seed(self) -> int:
        """The run's."""
        return int(number(self.record.config.get("seed")) or 0)

    @cached_property
    def costs(self) -> dict[str, Floats]:
        """What had been paid when the n-th child was trained, (N,) on each axis."""
        trials = self.record.distinct
        spent = {name: [number(trial.value(value)) or 0.0 for trial in trials]
                 for name, value in (("images", "images_seen"), ("seconds", "seconds"))}  # fmt: skip
        return {
            "cells": np.arange(1.0, len(trials) + 1),
            "images": np.cumsum(spent["images"]),
            "seconds": np.cumsum(np.array(spent["seconds"]) + self._strategy_seconds()),
        }

    def _strategy_seconds(self) -> Floats:
        """What the strategy took before each child, as far as its kept notes tell."""
        numbers = [trial.number for trial in self.record.distinct]
        seconds = np.zeros(len(numbers))
        for note in self.record.notes:
            took = sum(
                number(value) or 0.0 for name, value in note.values.items() if name.endswith("_seconds")
            )
            place = int(np.searchsorted(numbers, note.at))
            if took and place < len(numbers):
                seconds[place] += took
        return seconds

    @cached_property
    def rho(self) -> float | None:
        """The mean rank correlation of what a surrogate expected with what came; None without one."""
        names = ("rho_before", "rho")
        found = [number(note.values.get(name)) for note in self.record.notes for name in names]
        known = [value for value in found if value is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class Group:
    """The runs of a strategy, in order of their seeds."""

    strategy: str
    runs: list[ComparedRun]

    def total(self, axis: str) -> float:
        """What a run costs, in the mean."""
        return fmean(float(run.costs[axis][-1]) for run in self.runs)

    def on_axis(self, axis: str, measure: int, most: int) -> tuple[Floats, Floats]:
        """A grid of costs (k,) and T_M of every run there (runs, k)."""
        costs = [run.costs[axis] for run in self.runs]
        grid = cost_grid(costs)
        return grid, at_costs(grid, costs, [run.curves[measure, MOST.index(most)] for run in self.runs])

    def at(self, cells: int, measure: int, most: int) -> Floats:
        """T_M of every run after so many children, (runs,)."""
        curves = [run.curves[measure, MOST.index(most)] for run in self.runs]
        return np.array([curve[min(cells, len(curve)) - 1] for curve in curves])

    def last(self, measure: int, most: int) -> Floats:
        """T_M of every run at its end, (runs,)."""
        return np.array([run.curves[measure, MOST.index(most), -1] for run in self.runs])


class Comparison:
    """Groups of runs and what is told of their cells, the measure that is reported first.

    Args:
        records: of at least one run; the strategies' order is that of the search's own list.

    Raises:
        RunError: a run in which nothing finished, or two of one strategy and seed.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.records = list(records)
        _check(self.records)
        self.truth, self.lost_table = _truth(self.records)
        self.measures = _measures(self.records, self.truth)
        names = [record.strategy for record in self.records]
        order = [*STRATEGIES, *sorted(set(names) - set(STRATEGIES))]
        runs = [ComparedRun(record, self.measures) for record in self.records]
        runs.sort(key=lambda run: run.seed)
        self.groups = [
            Group(name, [run for run in runs if run.record.strategy == name])
            for name in order
            if name in names
        ]

    @cached_property
    def hypervolumes(self) -> dict[str, list[Floats]]:
        """Of each strategy's runs, after each child (N,); empty where they are not after the same."""
        reference = shared_reference(self.records)
        if reference is None:
            return {}
        return {
            group.strategy: [
                hypervolume_curve(run.record.distinct, run.record.aims, reference) for run in group.runs
            ]
            for group in self.groups
        }

    @property
    def reference(self) -> Group:
        """What others are measured by: progressive search, or else the first."""
        return self.groups[0]

    @cached_property
    def axes(self) -> list[str]:
        """Those of `AXES` on which every strategy is known to have cost something."""
        return [axis for axis in AXES if all(group.total(axis) > 0 for group in self.groups)]

    @property
    def budget(self) -> int:
        """Children that the longest run trained."""
        return max(len(run.record.distinct) for group in self.groups for run in group.runs)

    def group(self, strategy: str) -> Group | None:
        """The runs of a strategy; None where there are none."""
        return next((group for group in self.groups if group.strategy == strategy), None)


def _check(records: Sequence[RunRecord]) -> None:
    if not records:
        raise RunError("no run to compare")
    seen: dict[tuple[str, object], Path] = {}
    for record in records:
        if not record.done:
            raise RunError(f"{record.folder}: no child has finished yet, there is nothing to compare")
        key = record.strategy, record.config.get("seed")
        if key in seen:
            raise RunError(
                f"{record.folder}: {key[0]} with seed {key[1]}, as {seen[key]} is; "
                "repeats of a strategy have seeds of their own"
            )
        seen[key] = record.folder


def _truth(records: Sequence[RunRecord]) -> tuple[Truth | None, str | None]:
    """What the one table of all runs knows, or a line that says why it cannot be asked."""
    told = {(str(record.config.get("evaluator")), number(record.config.get("epochs"))) for record in records}
    if len(told) > 1 or not next(iter(told))[0].startswith(TABLE):
        return None, None
    ((evaluator, epochs),) = told
    file = Path(evaluator.removeprefix(TABLE)).resolve()
    if not file.is_file():
        return None, f"the table {file} is not there: nothing is told by it"
    return Truth(Table(str(file)), int(epochs or 0)), None


def _measures(records: Sequence[RunRecord], truth: Truth | None) -> list[Measure]:
    """The one that is reported comes first: what cells were not chosen by, where something is known of it."""
    found = [Measure("validation", "validation accuracy", lambda trial: trial.accuracy)]
    if all(isfinite(trial.value(TEST)) for record in records for trial in record.done):
        found.insert(0, Measure("test", "test accuracy", lambda trial: trial.value(TEST)))
    if truth is not None:
        what = "test" if truth.has_test else "validation"
        title = f"true accuracy ({what}, mean of {truth.replicas} replicas)"
        found.insert(0, Measure("true", title, truth.of))
    return found
