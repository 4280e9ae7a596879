"""What a person sees while a search runs: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from pnas_fast.cli.commands import say
from pnas_fast.foreign import printable
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Event, Finished, Noted, Progressed, Proposed, Said, Told
from pnas_fast.tracking.tally import Tally

PLAIN_SECONDS = 15.0
"""Plain output says how far it is about this often."""

RHO = "rank correlation: 1 is a perfect order, 0 is chance"


class Lines:
    """Lines for a log file: one at each turn of the search and one every `PLAIN_SECONDS`.

    Args:
        console: where they go.
        strategy: its name.
        planned: children in all, at most.
        aims: of the search.
    """

    def __init__(self, console: Console, strategy: str, planned: int, aims: Aims = ACCURACY_ALONE) -> None:
        self._console = console
        self.tally = Tally(planned, strategy, aims)
        self._said = time.monotonic()

    def on(self, event: Event) -> None:
        """Say what is worth a line."""
        self.tally.on(event)
        match event:
            case Said(text):
                self.say(text)
            case Noted("begun", values):
                self.say(_begun(values))
            case Noted("final", values):
                cells, children = values["cells"], values["children"]
                self.say(f"final choice: {cells} cells, {children} trainings with fresh seeds")
            case Noted("scored", values):
                self.scored(values)
            case Noted("level", values):
                self.say(_level(values, self.tally))
            case Finished(task, measurement) if not measurement.done:
                self.say(f"child {task.number} failed: {measurement.error} ({task.proposal.cell})")
            case Progressed() | Finished() | Told():
                self.update()
            case _:
                pass

    def say(self, text: str) -> None:
        """Say one line."""
        say(self._console, printable(text))  # a person's own evaluator may have worded it
        self._said = time.monotonic()

    def scored(self, values: Mapping[str, Any]) -> None:
        """So many candidates of the next level are scored."""
        if self._silent_for_long():
            how_far = f"{values['done']:,}/{values['of']:,} parents"
            self.say(f"level {values['level']}: {how_far} · {values['candidates']:,} candidates scored")

    def update(self) -> None:
        """Counts have changed."""
        if self._silent_for_long():
            tally = self.tally
            self.say(f"{tally.title}: {tally.done}/{tally.total} · {tally.status()}")

    def _silent_for_long(self) -> bool:
        return time.monotonic() - self._said > PLAIN_SECONDS

    def close(self) -> None:
        """Leave the terminal as it was."""


class Live(Lines):
    """A bar that moves, with the same lines above it."""

    def __init__(self, console: Console, strategy: str, planned: int, aims: Aims = ACCURACY_ALONE) -> None:
        super().__init__(console, strategy, planned, aims)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[title]}"),
            BarColumn(bar_width=12, table_column=Column(min_width=12)),
            MofNCompleteColumn(table_column=Column(min_width=7, no_wrap=True)),
            # On a narrow terminal this column is the one that gives way, from its end.
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
        )
        self._bar: TaskID | None = None
        self._progress.start()

    def on(self, event: Event) -> None:
        """Move the bar and say what is worth a line."""
        match event:
            case Noted("begun" | "level" | "final"):
                self._remove()
            case _:
                pass
        super().on(event)
        if isinstance(event, Proposed):
            self.update()

    def scored(self, values: Mapping[str, Any]) -> None:
        """See `Lines`."""
        status = f"{values['candidates']:,} candidates scored"
        self._show(f"level {values['level']}", values["done"], values["of"], status)

    def update(self) -> None:
        """See `Lines`."""
        tally = self.tally
        self._show(tally.title, tally.done, tally.total, tally.status())

    def _show(self, title: str, done: int, total: int, status: str) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task("", total=total, title=title, status=status)
        self._progress.update(self._bar, completed=done, total=total, title=title, status=status)

    def _remove(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None

    def close(self) -> None:
        """See `Lines`."""
        self._progress.stop()


def choose_display(console: Console, strategy: str, planned: int, aims: Aims = ACCURACY_ALONE) -> Lines:
    """A live display on a terminal, plain lines elsewhere."""
    return (Live if console.is_terminal else Lines)(console, strategy, planned, aims)


def _begun(values: Mapping[str, Any]) -> str:
    children, candidates = values["children"], values["candidates"]
    chosen = "all" if children == candidates else f"the best {children:,}"
    over = f" and {values['over_limit']:,} over a limit" if values.get("over_limit") else ""
    return f"level {values['level']}/{values['levels']}: {candidates:,} candidates{over}, training {chosen}"


def _level(values: Mapping[str, Any], tally: Tally) -> str:
    parts = [f"level {values['level']}/{values['levels']} done"]
    if tally.best is not None:
        parts[0] += f": best so far {tally.best.accuracy:.2%}"
    if values["rho_before"] is not None:
        parts.append(f"predicted with ρ = {values['rho_before']:.2f} ({RHO})")
    if tally.failed:
        parts.append(f"{tally.failed} children failed")
    return ", ".join(parts)
