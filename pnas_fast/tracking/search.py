"""A search as trackers see it: every trial by its number, what a strategy notes, what is left in the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Event, Noted, Told, Trial
from pnas_fast.tracking.messages import Point
from pnas_fast.tracking.trackers import Kept, Tracking


def _draw(into: Path) -> list[Path]:
    # Importing matplotlib takes a third of a second, which the first child need not wait for.
    from pnas_fast.report.as_png import write_images

    return write_images(into.parent, into / "figures")


KEPT = Kept(("config.json", "trials.csv", "report.html", "best.safetensors", "*.onnx"), _draw)
"""Of a search."""


class TrackedSearch:
    """A listener that makes points of a search's events.

    A step is a trial's number. Values are those that were measured, ``best_accuracy`` so far, ``failed`` so
    far, and numbers of the proposal's note as ``proposal/NAME``; those of final trainings are ``final/NAME``.
    What a strategy noted and kept is ``NOTE/NAME``, at the step of the last trial before it.

    Args:
        tracking: is offered the points.
        aims: of the search.
    """

    def __init__(self, tracking: Tracking, aims: Aims = ACCURACY_ALONE) -> None:
        self._tracking, self._aims = tracking, aims
        self._best: Trial | None = None
        self._failed = self._told = self._notes = 0

    def on(self, event: Event) -> None:
        """Offer what is worth a point, and say what trackers have to say."""
        match event:
            case Told(trial):
                self._told = trial.number + 1
                self._tracking.offer(self._trial(trial))
            case Noted(name, values, True):
                step = max(self._told - 1, 0)
                self._tracking.offer(Point("note", self._notes, step, _numbers(values, f"{name}/")))
                self._notes += 1
            case _:
                pass
        self._tracking.hear()

    def _trial(self, trial: Trial) -> Point:
        is_final = trial.proposal.is_final
        values = _numbers(trial.measurement.values, "final/" if is_final else "")
        values |= _numbers(trial.proposal.note, "proposal/")
        texts = {"cell": str(trial.cell)}
        if not trial.done:
            self._failed += 1
            values["failed"] = self._failed
            texts["error"] = trial.measurement.error or ""
        elif not is_final and (self._best is None or self._aims.rank(trial) > self._aims.rank(self._best)):
            self._best = trial
            texts["best_cell"] = str(trial.cell)
        if self._best is not None and not is_final:
            values["best_accuracy"] = self._best.accuracy
        return Point("trial", trial.number, trial.number, values, texts, trial.done)


def _numbers(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The finite numbers among JSON values."""
    return {
        f"{prefix}{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
