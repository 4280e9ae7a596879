"""What a search found, as values and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnas_fast.runs.folder import CONFIG, RunError
from pnas_fast.runs.store import Level, Trial, TrialStore
from pnas_fast.runs.weights import BEST
from pnas_fast.search.config import SearchConfig
from pnas_fast.space import Cell

TRIALS = "trials.sqlite"
REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class TrialArrays:
    """All trials of a search, in the order in which it asked for them; every array has length n.

    ``accuracy`` (validation, in [0, 1]) and ``loss`` (last epoch's mean) are NaN for failed trials,
    whose ``error`` is not empty.
    """

    cell: npt.NDArray[np.str_]
    level: npt.NDArray[np.int64]
    status: npt.NDArray[np.str_]
    accuracy: npt.NDArray[np.float64]
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

        def column(name: str, dtype: Any, missing: Any = None) -> npt.NDArray[Any]:
            values = (getattr(trial, name) for trial in trials)
            return np.array([missing if value is None else value for value in values], dtype=dtype)

        return cls(
            cell=column("cell", np.str_),
            level=column("level", np.int64),
            status=column("status", np.str_),
            accuracy=column("accuracy", np.float64, np.nan),
            loss=column("loss", np.float64, np.nan),
            seconds=column("seconds", np.float64),
            images_seen=column("images_seen", np.int64),
            parameters=column("parameters", np.int64),
            multiply_adds=column("multiply_adds", np.int64),
            error=column("error", np.str_, ""),
        )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A search's outcome.

    ``best`` is the cell with the highest validation accuracy (the earlier of equals), ``images_seen``
    the search's cost in training images over all children (the paper's M1·E1).
    """

    config: SearchConfig
    folder: Path
    best: Cell
    accuracy: float
    trials: TrialArrays
    levels: list[Level]

    @property
    def images_seen(self) -> int:
        """Training images over all children."""
        return int(self.trials.images_seen.sum())

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
        """The result of a run so far.

        Raises:
            RunError: there is no run, or no child of it has finished.
        """
        folder = Path(folder)
        if not (folder / TRIALS).is_file():
            raise RunError(f"{folder}: holds no {TRIALS}, expected the folder of a run")
        with TrialStore(folder / TRIALS) as store:
            trials, levels = store.trials(), store.levels()
        best = best_trial(trials)
        if best is None or best.accuracy is None:
            raise RunError(f"{folder}: no child has finished yet")
        config = SearchConfig.load(folder / CONFIG)
        return cls(config, folder, Cell.parse(best.cell), best.accuracy, TrialArrays.of(trials), levels)


def best_trial(trials: list[Trial]) -> Trial | None:
    """The trial with the highest accuracy, the earlier of equals; None where none is done."""
    done = [trial for trial in trials if trial.accuracy is not None]
    return max(done, key=lambda trial: (trial.accuracy, -trial.position), default=None)
