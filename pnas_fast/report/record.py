"""A run as the report reads it: the trial store, the configuration, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pnas_fast.objectives import pareto_front
from pnas_fast.runs.store import Level, Prediction, Trial, TrialStore

PAPER_IMAGES = 1_160 * 20 * 45_000
"""What the paper's search cost, M1·E1: children times epochs times training images (docs/method.md, 2)."""


class ReportError(ValueError):
    """A folder that cannot be reported on; the message names the file and what was expected."""


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """A trial that has an accuracy, with that accuracy as a plain number."""

    trial: Trial
    accuracy: float


@dataclass(frozen=True)
class RunRecord:
    """Everything the report shows, read once.

    ``trials`` are in search order, ``levels`` are the finished ones in order, ``predictions`` are by
    cell text and ``config`` is the flat JSON object of the run.
    """

    trials: list[Trial]
    levels: list[Level]
    predictions: dict[str, Prediction]
    config: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Read a run's folder.

        Raises:
            ReportError: ``config.json`` or ``trials.sqlite`` is missing, or the former is not an object.
            StoreError: ``trials.sqlite`` is not a trial store.
        """
        config = _read_config(folder / "config.json")
        store_path = folder / "trials.sqlite"
        if not store_path.is_file():
            raise ReportError(f"{store_path}: does not exist, expected the trial store of a run")
        with TrialStore(store_path) as store:
            # Levels first: a search may be adding to the store, and what belongs to a level comes before it.
            levels = store.levels()
            return cls(store.trials(), levels, store.predictions(), config)

    @cached_property
    def done(self) -> list[FinishedTrial]:
        """Trials that have an accuracy, in search order."""
        return [
            FinishedTrial(trial=trial, accuracy=trial.accuracy)
            for trial in self.trials
            if trial.accuracy is not None
        ]

    @property
    def failed(self) -> list[Trial]:
        """Trials without an accuracy, in search order."""
        return [trial for trial in self.trials if trial.accuracy is None]

    @cached_property
    def ranked(self) -> list[FinishedTrial]:
        """Finished trials from the best accuracy down, the earlier of equals first."""
        return sorted(self.done, key=lambda item: (-item.accuracy, item.trial.position))

    def front(self, cost: Callable[[Trial], int]) -> list[FinishedTrial]:
        """The `pareto_front` of finished trials, from the cheapest to the most accurate."""
        return pareto_front(self.done, lambda item: cost(item.trial), lambda item: item.accuracy)

    @property
    def level_numbers(self) -> list[int]:
        """Levels that have a trial or are finished, in order."""
        numbers = {trial.level for trial in self.trials} | {level.level for level in self.levels}
        return sorted(numbers)

    def done_at(self, level: int) -> list[FinishedTrial]:
        """Finished trials of one level, in search order."""
        return [item for item in self.done if item.trial.level == level]

    def level(self, number: int) -> Level | None:
        """The record of a level, None while it is not finished."""
        return next((level for level in self.levels if level.level == number), None)

    @property
    def planned_levels(self) -> int | None:
        """How many levels the configuration asks for (its ``blocks``), None where it does not say."""
        blocks = self.config.get("blocks")
        return blocks if isinstance(blocks, int) else None

    @property
    def images_seen(self) -> int:
        """The cost of the search so far in training images, the paper's M1·E1."""
        return sum(trial.images_seen for trial in self.trials)

    @property
    def child_seconds(self) -> float:
        """Time spent in children, added up over all of them, also where several ran side by side."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def surrogate_seconds(self) -> float:
        """Time spent expanding, scoring and fitting over the finished levels."""
        return sum(level.surrogate_seconds for level in self.levels)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read ({error}), expected a JSON object") from error
    if not isinstance(config, dict):
        raise ReportError(f"{path}: holds a {type(config).__name__}, expected a JSON object")
    return config
