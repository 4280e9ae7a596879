"""How far a comparison is: one bar over all runs on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from pnas_fast.cli.commands import say
from pnas_fast.compare.plan import Planned, children_of
from pnas_fast.protocols import Event, Said, Told
from pnas_fast.report.text import duration

_PLAIN_SECONDS = 15.0


class Bar:
    """A listener to every run, which counts their children together.

    Args:
        console: where people look.
        runs: all that are planned.
    """

    def __init__(self, console: Console, runs: Sequence[Planned]) -> None:
        self._console, self._runs = console, len(runs)
        self._planned = {planned.folder: children_of(planned.config) for planned in runs}
        self._total, self._done, self._skipped = sum(self._planned.values()), 0, 0
        self._title, self._ended, self._told = "", 0, 0
        self._started = self._said = time.monotonic()
        self._heard: set[str] = set()
        self._progress = Progress(
            TextColumn("[bold]{task.fields[title]}"),
            BarColumn(bar_width=12, table_column=Column(min_width=8)),
            MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=self._total, title="", status="")

    def begin(self, planned: Planned) -> None:
        """A run is next."""
        self._title, self._told = planned.folder.name, 0

    def on(self, event: Event) -> None:
        """Count a run's children, and say what it says that no other has said."""
        match event:
            case Said(text) if text not in self._heard:
                self._heard.add(text)
                self._say(text)
            case Told():
                self._told += 1
                self._show()
            case _:
                pass

    def end(self, planned: Planned, skipped: bool = False) -> None:
        """A run has ended, whose children may be fewer than was planned, or it had ended before."""
        children = self._planned[planned.folder]
        self._done += children
        self._skipped += children * skipped
        self._title, self._told = planned.folder.name, 0
        self._ended += 1
        self._show()

    def _show(self) -> None:
        done = min(self._done + self._told, self._total)
        passed = time.monotonic() - self._started
        status = f"{self._ended} of {self._runs} runs"
        if done > self._skipped:
            left = (self._total - done) * passed / (done - self._skipped)
            status += f" · {duration(left)} left"
        self._progress.update(self._task, completed=done, title=self._title, status=status)
        if not self._console.is_terminal and time.monotonic() - self._said > _PLAIN_SECONDS:
            self._say(f"{self._title}: {done:,}/{self._total:,} children · {status}")

    def _say(self, text: str) -> None:
        say(self._console, text)
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
