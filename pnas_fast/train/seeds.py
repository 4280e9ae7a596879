"""The result of trainings that differ in their seed alone: means and standard deviations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from pnas_fast.files import write_text
from pnas_fast.report.text import plural
from pnas_fast.runs.disk import writing
from pnas_fast.train.heldout import HeldOut

SEEDS = "seeds.json"


class Outcome(NamedTuple):
    """What came of one training.

    Attributes:
        seed: its seed.
        validation: the accuracy by which its epoch was chosen; None where none was, or nobody knows it any
            more.
        tested: what it makes of test images; None without them.
    """

    seed: int
    validation: float | None
    tested: HeldOut | None


def seed_folder(folder: Path, seed: int) -> Path:
    """Where one of several trainings lies."""
    return folder / f"seed-{seed}"


def write_seeds(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the values of all seeds, with their mean and standard deviation (n - 1), into their folder.

    Raises:
        DiskError: they cannot be written.
    """
    found = {name: _summary(values) for name, values in _accuracies(outcomes).items()}
    content = {"seeds": [outcome.seed for outcome in outcomes], **found}
    with writing(folder / SEEDS):
        write_text(folder / SEEDS, json.dumps(content, indent=2) + "\n")


def seeds_text(outcomes: Sequence[Outcome]) -> str:
    """Means and standard deviations, for people, in one line."""
    known = {name: values for name, values in _accuracies(outcomes).items() if values}
    told = [
        f"{name.replace('_', ' ')} {100 * mean(values):.2f} ± {100 * stdev(values):.2f} %"
        for name, values in known.items()
    ]
    seeds = plural(len(outcomes), "seed", "seeds")
    return f"{seeds}, mean ± standard deviation: {', '.join(told) or 'nothing was measured'}"


def _accuracies(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """The accuracies of all trainings; empty where one of them has none, for a mean without it misleads."""
    tested = [None if outcome.tested is None else outcome.tested.accuracy for outcome in outcomes]
    balanced = [None if outcome.tested is None else outcome.tested.balanced_accuracy for outcome in outcomes]
    columns = {
        "validation_accuracy": [outcome.validation for outcome in outcomes],
        "test_accuracy": tested,
        "test_balanced_accuracy": balanced,
    }
    return {
        name: [value for value in values if value is not None] if None not in values else []
        for name, values in columns.items()
    }


def _summary(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {"values": list(values), "mean": mean(values), "standard_deviation": stdev(values)}
