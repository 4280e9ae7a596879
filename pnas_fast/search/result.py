"""What a search found, as values and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnas_fast.cli.options import ConfigError
from pnas_fast.engine.few_shot import REPTILE
from pnas_fast.protocols import Trial
from pnas_fast.report.text import count, duration, plural, points
from pnas_fast.runs.choice import Choice, Finalist
from pnas_fast.runs.folder import REPORT, RunError
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.weights import BEST
from pnas_fast.search.config import SearchConfig
from pnas_fast.space import Cell


@dataclass(frozen=True, slots=True)
class TrialArrays:
    """Trials of a search, in the order in which it asked for them; every array has length n.

    ``accuracy`` (validation, in [0, 1]), ``validation_loss`` (cross-entropy) and ``loss`` (training, last
    epoch's mean) are NaN for failed trials, whose ``error`` is not empty. What an evaluator did not measure
    is NaN, or 0 in the arrays of integers.
    """

    number: npt.NDArray[np.int64]
    cell: npt.NDArray[np.str_]
    level: npt.NDArray[np.int64]
    status: npt.NDArray[np.str_]
    accuracy: npt.NDArray[np.float64]
    validation_loss: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    images_seen: npt.NDArray[np.int64]
    parameters: npt.NDArray[np.int64]
    multiply_adds: npt.NDArray[np.int64]
    error: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.level)

    @classmethod
    def of(cls, trials: list[Trial]) -> TrialArrays:
        """Arrays of a list of trials."""

        def column(values: list[Any], dtype: Any) -> npt.NDArray[Any]:
            return np.array(values, dtype=dtype)

        def measured(name: str) -> npt.NDArray[np.float64]:
            return column([trial.value(name) if trial.done else np.nan for trial in trials], np.float64)

        def counted(name: str) -> npt.NDArray[np.int64]:
            return column([trial.measurement.values.get(name, 0) for trial in trials], np.int64)

        return cls(
            number=column([trial.number for trial in trials], np.int64),
            cell=column([str(trial.cell) for trial in trials], np.str_),
            level=column([len(trial.cell) for trial in trials], np.int64),
            status=column([trial.measurement.status for trial in trials], np.str_),
            accuracy=measured("accuracy"),
            validation_loss=measured("validation_loss"),
            loss=measured("loss"),
            seconds=column([trial.value("seconds") for trial in trials], np.float64),
            images_seen=counted("images_seen"),
            parameters=counted("parameters"),
            multiply_adds=counted("multiply_adds"),
            error=column([trial.measurement.error or "" for trial in trials], np.str_),
        )


@dataclass(frozen=True, slots=True, repr=False)
class SearchResult:
    """A search's outcome, which prints itself in a few lines.

    ``best`` is the chosen cell and ``accuracy`` its validation accuracy: the mean of its final trainings.
    Without a final choice they are those of the single training with the highest accuracy (of equals that
    with the lower validation loss, then the earlier), which is too high as a rule. ``trials`` are the
    search's, ``levels`` the notes of a progressive search's finished levels.
    """

    config: SearchConfig
    folder: Path
    best: Cell
    accuracy: float
    trials: TrialArrays
    levels: list[Mapping[str, Any]]
    record: RunRecord

    def top(self, n: int = 5) -> list[Trial]:
        """The search's best ``n`` trials, the best first; fewer where fewer have finished."""
        return self.record.ranked[:n]

    @property
    def front(self) -> list[Trial]:
        """The measured trials that no other beats in all objectives, the most accurate first.

        Only cells that keep all limits are on it; where none does, those that break them least. A search for
        accuracy alone has the front of accuracy and parameters.
        """
        return self.record.front

    @property
    def front_latency(self) -> dict[int, float]:
        """Milliseconds of networks on the front by the numbers of their trials.

        They were measured when the search ended, on the machine that its device file is of; empty elsewhere.
        """
        return self.record.front_latency

    @property
    def hypervolume(self) -> float:
        """How good the front is, in [0, 1], from a reference that does not depend on the search.

        Of accuracy above 0, and of each cost the share that is saved of its limit, or where it has none of
        the most that a cell of the space costs. For accuracy alone it is the best accuracy.
        """
        aims = self.record.aims
        return aims.hypervolume(self.record.done, aims.reference(self.config.blocks, self.config.operations))

    @property
    def keeps_limits(self) -> bool:
        """Whether the best cell keeps all limits; if not, no finished one does."""
        return not self.record.aims.violation(self.best)

    @property
    def choice(self) -> Choice | None:
        """The final choice, the best finalist first; None where there was none."""
        return self.record.choice

    @property
    def images_seen(self) -> int:
        """Training images over all children (the paper's M1·E1)."""
        return self.record.images_seen

    @property
    def weights(self) -> Path:
        """The best child's weights; `pnas_fast.runs.weights.load_child` reads them."""
        return self.folder / BEST

    @property
    def report(self) -> Path:
        """The page that explains the search."""
        return self.folder / REPORT

    @classmethod
    def load(cls, folder: Path | str) -> SearchResult:
        """The result of a run so far, also of one that an earlier version made.

        Raises:
            RunError: there is no run, no child of it has finished, or its configuration was edited.
            ConfigError, StoreError: a file of it is damaged.
        """
        record = RunRecord.load(folder)
        if record.best is None:
            raise RunError(f"{folder}: no child has finished yet")
        try:
            config = SearchConfig.from_values(record.config)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ConfigError(f"{folder}: not the configuration of a search ({error})") from error
        best, levels = record.best, [note.values for note in record.notes_named("level")]
        trials = TrialArrays.of(record.trials)
        accuracy = best.accuracy if record.choice is None else record.choice.chosen.mean()
        return cls(config, record.folder, best.cell, accuracy, trials, levels, record)

    def rows(self) -> list[tuple[str, str]]:
        """What to tell a person, as names and values."""
        best, failed = self.record.best, len(self.record.failed)
        values = {} if best is None else best.measurement.values
        size = [f"{count(int(values[name]))} {what}" for name, what in _SIZES if name in values]
        children = plural(len(self.record.distinct), "child", "children")
        cost = [children + (f" ({failed} failed)" if failed else "")]
        cost += [f"{count(self.images_seen)} images"] if self.images_seen else []
        rows = [("best cell", str(self.best)), *self._limits(), *self._accuracies()]
        finals = len(self.record.finals)
        cost += [plural(finals, "final training", "final trainings")] if finals else []
        rows += [("size", ", ".join(size))] if size else []
        rows += self._deployed()
        rows += [("cost", f"{', '.join(cost)}, {duration(self.record.child_seconds)} of training")]
        rows += [("report", str(self.report))] if self.report.is_file() else []
        return rows + ([("weights", str(self.weights))] if self.weights.is_file() else [])

    def _limits(self) -> list[tuple[str, str]]:
        """What must not be overlooked: that no cell keeps the limits."""
        if self.keeps_limits:
            return []
        return [
            ("LIMITS", f"NO finished cell keeps {' and '.join(self.config.limit)}: this one breaks it least")
        ]

    def _deployed(self) -> list[tuple[str, str]]:
        """What the best cell's network costs where it is deployed, and the front."""
        costs = self.record.costs
        if not costs:
            return []
        codes = self.best.codes[np.newaxis]
        told = [f"{cost.before(codes)[0]:,.6g} {name}" for name, cost in costs.items()]
        rows = [("deployed", ", ".join(told))]
        if self.record.aims.costs:
            front = plural(len(self.front), "trial", "trials")
            rows += [("front", f"{front} that no other beats, hypervolume {self.hypervolume:.4f}")]
        if measured := self.front_latency:
            table = costs["latency_ms"]
            off = [abs(table.of(trial) / measured[trial.number] - 1) for trial in self.front
                   if trial.number in measured]  # fmt: skip
            span = f"{min(measured.values()):.3g} to {max(measured.values()):.3g} ms"
            rows += [
                ("measured", f"{span} on the front; the table was {max(off, default=0):.0%} off at most")
            ]
        return rows

    def _accuracies(self) -> list[tuple[str, str]]:
        choice, judges = self.choice, "classes" if self.config.evaluator == REPTILE else "images"
        if choice is None:
            return [("accuracy", f"{self.accuracy:.2%} on validation {judges}")]
        chosen, optimism = choice.chosen, choice.optimism
        of = plural(len(chosen.finals), "final training", "final trainings")
        rows = [("accuracy", f"{_with_error(chosen, '')} on validation {judges}, {of}")]
        if chosen.mean("test_accuracy") == chosen.mean("test_accuracy"):
            rows += [("test", f"{_with_error(chosen, 'test_')} on test {judges}, the same trainings")]
        if self.record.images is not None and self.record.images.is_unbalanced:
            rows += [("balanced", text)] if (text := _balanced(chosen)) else []
        if optimism == optimism:
            rows += [("optimism", f"the search's own number of its favourite was {points(optimism)} off")]
        return rows

    def __str__(self) -> str:
        return "\n".join(f"{name:<10}{value}" for name, value in self.rows())

    __repr__ = __str__


def _with_error(chosen: Finalist, part: str) -> str:
    """``76.40% ± 0.61%``, the mean and its standard error."""
    name = f"{part}accuracy"
    error = chosen.standard_error(name, f"{part or 'validation_'}images")
    return f"{chosen.mean(name):.2%}" + (f" ± {error:.2%}" if error == error else "")


def _balanced(chosen: Finalist) -> str:
    """``71.20% on validation images, 70.80% on test images``: the means of balanced accuracies."""
    means = {part: chosen.mean(f"{part}balanced_accuracy") for part in ("", "test_")}
    return ", ".join(
        f"{mean:.2%} on {'test' if part else 'validation'} images"
        for part, mean in means.items()
        if mean == mean
    )


_SIZES = (("parameters", "parameters"), ("multiply_adds", "multiply-adds an image"))
