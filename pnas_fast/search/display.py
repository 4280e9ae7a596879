"""What a person sees while a search runs: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from pnas_fast.runs.store import Level, Trial

PLAIN_SECONDS = 15.0
"""Plain output says how far it is about this often."""


@dataclass(slots=True)
class Tally:
    """Counts of the level in progress and of what is left."""

    level: int = 0
    levels: int = 0
    children: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    trained: int = 0
    images: int = 0
    later: int = 0
    best: float | None = None
    started: float = field(default_factory=time.monotonic)

    def status(self) -> str:
        """One line: running, failed, best, images/s, time left."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.running} running"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.best is not None:
            parts.append(f"best {self.best:.2%}")
        if self.images:
            parts.append(f"{self.images / seconds:,.0f} images/s")
        if self.trained:
            left = self.children - self.done + self.later
            parts.append(f"about {duration(left * seconds / self.trained)} left")
        return " · ".join(parts)


class Display(Protocol):
    """What a search tells about itself. Every method returns at once."""

    def note(self, text: str) -> None:
        """Say one line."""

    def level_started(self, level: int, levels: int, candidates: int, children: int, later: int) -> None:
        """A level begins: how many candidates there were, are trained, and follow at later levels."""

    def child_started(self) -> None:
        """A worker has begun a child."""

    def child_progress(self, images: int) -> None:
        """Children have seen so many more images."""

    def child_finished(self, trial: Trial, best: float | None, *, replayed: bool) -> None:
        """A child has a result, now or from an earlier run; ``best`` is the best accuracy so far."""

    def level_finished(self, level: Level, best: float) -> None:
        """A level is trained and the surrogate fitted to it."""

    def candidates_scored(self, level: int, levels: int, candidates: int, done: int, parents: int) -> None:
        """So many candidates of the next level are scored: those of ``done`` of its ``parents``."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class SilentDisplay:
    """Says nothing; keeps the tally for those that do."""

    def __init__(self) -> None:
        self.tally = Tally()

    def note(self, text: str) -> None:
        """See `Display`."""

    def level_started(self, level: int, levels: int, candidates: int, children: int, later: int) -> None:
        """See `Display`."""
        best = self.tally.best
        self.tally = Tally(level=level, levels=levels, children=children, later=later, best=best)

    def child_started(self) -> None:
        """See `Display`."""
        self.tally.running += 1

    def child_progress(self, images: int) -> None:
        """See `Display`."""
        self.tally.images += images

    def child_finished(self, trial: Trial, best: float | None, *, replayed: bool) -> None:
        """See `Display`."""
        self.tally.done += 1
        self.tally.failed += trial.status == "failed"
        self.tally.best = best
        if not replayed:
            self.tally.trained += 1
            self.tally.running -= 1

    def level_finished(self, level: Level, best: float) -> None:
        """See `Display`."""

    def candidates_scored(self, level: int, levels: int, candidates: int, done: int, parents: int) -> None:
        """See `Display`."""

    def close(self) -> None:
        """See `Display`."""


class PlainDisplay(SilentDisplay):
    """Lines for a log file: one at each turn of the search and one every `PLAIN_SECONDS`."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._said = time.monotonic()

    def note(self, text: str) -> None:
        """See `Display`."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._said = time.monotonic()

    def level_started(self, level: int, levels: int, candidates: int, children: int, later: int) -> None:
        """See `Display`."""
        super().level_started(level, levels, candidates, children, later)
        self.note(level_text(level, levels, candidates, children))

    def child_progress(self, images: int) -> None:
        """See `Display`."""
        super().child_progress(images)
        self._update()

    def child_finished(self, trial: Trial, best: float | None, *, replayed: bool) -> None:
        """See `Display`."""
        super().child_finished(trial, best, replayed=replayed)
        if trial.status == "failed" and not replayed:
            self.note(failure_text(trial))
        self._update()

    def level_finished(self, level: Level, best: float) -> None:
        """See `Display`."""
        self.note(level_result_text(level, self.tally, best))

    def candidates_scored(self, level: int, levels: int, candidates: int, done: int, parents: int) -> None:
        """See `Display`."""
        if self._silent_for_long():
            self.note(f"level {level}/{levels}: {done:,}/{parents:,} parents · {scored_text(candidates)}")

    def _update(self) -> None:
        if self._silent_for_long():
            tally = self.tally
            self.note(f"level {tally.level}/{tally.levels}: {tally.done}/{tally.children} · {tally.status()}")

    def _silent_for_long(self) -> bool:
        return time.monotonic() - self._said > PLAIN_SECONDS


class LiveDisplay(PlainDisplay):
    """A bar that moves, with the same lines above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]level {task.fields[level]}"),
            BarColumn(bar_width=16, table_column=Column(min_width=16)),
            MofNCompleteColumn(table_column=Column(min_width=7, no_wrap=True)),
            # On a narrow terminal this column is the one that gives way.
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._progress.start()

    def level_started(self, level: int, levels: int, candidates: int, children: int, later: int) -> None:
        """See `Display`."""
        self._remove_bar()
        super().level_started(level, levels, candidates, children, later)
        self._task = self._add_bar(f"{level}/{levels}", children)

    def level_finished(self, level: Level, best: float) -> None:
        """See `Display`."""
        self._remove_bar()
        super().level_finished(level, best)

    def candidates_scored(self, level: int, levels: int, candidates: int, done: int, parents: int) -> None:
        """See `Display`."""
        if self._task is None:
            self._task = self._add_bar(f"{level}/{levels}", parents)
        self._progress.update(self._task, completed=done, status=scored_text(candidates))

    def close(self) -> None:
        """See `Display`."""
        self._progress.stop()

    def child_started(self) -> None:
        """See `Display`."""
        super().child_started()
        self._update()

    def _add_bar(self, level: str, total: int) -> TaskID:
        return self._progress.add_task("", total=total, level=level, status="")

    def _remove_bar(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _update(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=self.tally.done, status=self.tally.status())


def choose_display(console: Console) -> Display:
    """A live display on a terminal, plain lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


def level_text(level: int, levels: int, candidates: int, children: int) -> str:
    """A level's first line."""
    chosen = "all" if children == candidates else f"the best {children:,}"
    return f"level {level}/{levels}: {candidates:,} candidates, training {chosen}"


def scored_text(candidates: int) -> str:
    """How far scoring is."""
    return f"{candidates:,} candidates scored"


def level_result_text(level: Level, tally: Tally, best: float) -> str:
    """A level's last line."""
    parts = [f"level {level.level}/{tally.levels} done: best so far {best:.2%}"]
    if level.rho_before is not None:
        parts.append(f"predicted with ρ = {level.rho_before:.2f}")
    if tally.failed:
        parts.append(f"{tally.failed} children failed")
    return ", ".join(parts)


def failure_text(trial: Trial) -> str:
    """What to say when a child fails."""
    return f"child {trial.position} failed: {trial.error} ({trial.cell})"


def duration(seconds: float) -> str:
    """Seconds for people: ``48 s``, ``3 min``, ``5.2 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
