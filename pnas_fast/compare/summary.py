"""Everything that a comparison says in numbers, as JSON values; tables and the page are written from it."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from pnas_fast.compare.compared import AXES, TEST, Comparison, Group
from pnas_fast.compare.curves import MOST, Floats
from pnas_fast.compare.rigour import rigour_of, trainings_of
from pnas_fast.compare.statistics import EXACT, holm, mann_whitney, mean_interval, standard_error
from pnas_fast.compare.targets import targets_of
from pnas_fast.version import VERSION

_STOPS = (100, 200, 500, 1160)
"""Children after which accuracies are told, beside the whole budget; 1,160 is the paper's."""


def summarise(comparison: Comparison, own: float | None = None) -> dict[str, Any]:
    """The numbers of a comparison, accuracies as fractions; what is unknown or infinite is None.

    Args:
        comparison: of runs.
        own: a target of the person's own, for T_1.
    """
    truth = comparison.truth
    return {
        "pnas_fast": VERSION,
        "trainings": trainings_of(comparison),
        "measures": [{"name": one.name, "title": one.title} for one in comparison.measures],
        "reported": comparison.measures[0].name,
        "reference": comparison.reference.strategy,
        "stops": stops_of(comparison),
        "axes": comparison.axes,
        "table": None
        if truth is None
        else {
            "cells": len(truth),
            "replicas": truth.replicas,
            "best": truth.best,
            "best_percent": truth.best_share(0.01),
        },
        "strategies": {group.strategy: _strategy(comparison, group) for group in comparison.groups},
        "targets": targets_of(comparison, own),
        "tests": _tests(comparison),
        "rigour": rigour_of(comparison),
    }


def stops_of(comparison: Comparison) -> list[int]:
    """Numbers of children after which accuracies are told; the last is the whole budget."""
    return [*(stop for stop in _STOPS if stop < comparison.budget), comparison.budget]


def known(value: float) -> float | None:
    """A number for JSON; None where it is none."""
    return float(value) if isfinite(value) else None


def _strategy(comparison: Comparison, group: Group) -> dict[str, Any]:
    records = [run.record for run in group.runs]
    rhos = [run.rho for run in group.runs if run.rho is not None]
    reported = group.last(0, 1)
    best = max(float(np.nanmax(other.last(0, 1))) for other in comparison.groups)
    truth = comparison.truth
    return {
        "n": len(records),
        "seeds": [run.seed for run in group.runs],
        "asked": _mean([len(record.trials) for record in records]),
        "trained": _mean([len(record.distinct) for record in records]),
        "failed": _mean([len(record.failed) for record in records]),
        **{axis: group.total(axis) for axis in AXES[1:]},
        "rho": _mean(rhos) if rhos else None,
        "regret": known(best - reported.mean()),
        "regret_in_table": None if truth is None else known(truth.best - reported.mean()),
        "rank_in_table": None if truth is None else _mean([truth.rank(value) for value in reported]),
        "final": _final(group),
        "hypervolume": _hypervolume(comparison, group),
        "accuracy": {
            measure.name: {str(most): _accuracies(comparison, group, index, most) for most in MOST}
            for index, measure in enumerate(comparison.measures)
        },
    }


def _hypervolume(comparison: Comparison, group: Group) -> dict[str, Any] | None:
    """At the end of the runs; None where they are not after the same objectives."""
    curves = comparison.hypervolumes.get(group.strategy)
    return None if curves is None else _spread(np.array([curve[-1] for curve in curves]))


def _final(group: Group) -> dict[str, Any] | None:
    """What the cells of the runs' final choices have with fresh seeds; None where a run made no choice."""
    chosen = [run.record.choice.chosen for run in group.runs if run.record.choice is not None]
    if len(chosen) < len(group.runs):
        return None
    tested = np.array([finalist.mean(TEST) for finalist in chosen])
    is_tested = bool(np.isfinite(tested).all())
    values = tested if is_tested else np.array([finalist.mean() for finalist in chosen])
    return {"measure": "test" if is_tested else "validation", **_spread(values)}


def _accuracies(comparison: Comparison, group: Group, measure: int, most: int) -> dict[str, Any]:
    _, curves = group.on_axis("cells", measure, most)
    area = [float(np.nanmean(curve)) if np.isfinite(curve).any() else float("nan") for curve in curves]
    # What a run has not spent at a stop it has no accuracy for, unless it had ended.
    stops = {str(stop): _spread(group.at(stop, measure, most)) for stop in stops_of(comparison)}
    return {"at": stops, "end": _spread(group.last(measure, most)), "auc": known(float(np.mean(area)))}


def _spread(values: Floats) -> dict[str, Any]:
    """Mean, standard error and bootstrap interval over repeats, and the values themselves."""
    interval = mean_interval(values)
    return {
        "mean": known(values.mean()),
        "error": known(float(standard_error(values))),
        "interval": None if interval is None else list(interval),
        "values": [known(value) for value in values],
    }


def _tests(comparison: Comparison) -> list[dict[str, Any]]:
    """The reference against every other strategy at the end of the runs, for each M."""
    found = []
    for most in MOST:
        mine = comparison.reference.last(0, most)
        rows = list[dict[str, Any]]()
        for group in comparison.groups[1:]:
            theirs = group.last(0, most)
            if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
                continue
            u, p = mann_whitney(mine.tolist(), theirs.tolist())
            improvement = u / (len(mine) * len(theirs))
            told = {"u": u, "p": p, "improvement": improvement, "exact": len(mine) * len(theirs) <= EXACT}
            rows.append({"most": most, "other": group.strategy, **told})
        adjusted = holm([row["p"] for row in rows])
        found += [{**row, "holm": p} for row, p in zip(rows, adjusted, strict=True)]
    return found


def _mean(values: list[Any]) -> float:
    return float(np.mean(values))
