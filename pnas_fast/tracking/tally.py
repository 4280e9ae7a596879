"""How far a search is: counts that every display shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Event, Finished, Noted, Progressed, Started, Told, Trial
from pnas_fast.report.text import duration


@dataclass(slots=True)
class Tally:
    """Counts of a search and of the level in progress, kept up to date by its events.

    Args:
        planned: children in all, at most.
        aims: of the search.
    """

    planned: int
    title: str = ""
    aims: Aims = ACCURACY_ALONE
    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    trained: int = 0
    finished: int = 0
    images: int = 0
    best: Trial | None = None
    started: float = field(default_factory=time.monotonic)
    _seen: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = self.planned

    def on(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Noted("begun", values):
                self._begin(f"level {values['level']}/{values['levels']}", values["children"])
            case Noted("final", values):
                self._begin("final choice", values["children"])
            case Started():
                self.running += 1
            case Progressed(task, images):
                self.images += images - self._seen.get(task.number, 0)
                self._seen[task.number] = images
            case Finished(task, measurement):
                self.running -= 1
                self.trained += 1
                self._count(Trial(task.number, task.proposal, measurement))
            case Told(trial, replayed) if replayed:
                self._count(trial)
            case _:
                pass

    def _begin(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.done = self.failed = self.trained = self.images = 0
        self._seen.clear()
        self.started = time.monotonic()

    def _count(self, trial: Trial) -> None:
        self.done += 1
        self.finished += 1
        self.failed += not trial.done
        if (
            trial.done
            and not trial.proposal.is_final
            and (self.best is None or self.aims.rank(trial) > self.aims.rank(self.best))
        ):
            self.best = trial

    def status(self) -> str:
        """One line; what matters most comes first, for narrow terminals cut its end off."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        parts = []
        if self.trained:
            left = max(self.planned - self.finished, 0)
            parts.append(f"{duration(left * seconds / self.trained)} left")
        if self.best is not None:
            parts.append(f"best {self.best.accuracy:.2%}")
        parts.append(f"{self.running} running")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.images:
            parts.append(f"{self.images / seconds:,.0f} images/s")
        return " · ".join(parts)
