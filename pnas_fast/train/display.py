"""What a person sees of a long training: a bar on a terminal, a line an epoch above it and elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from pnas_fast.cli.commands import say
from pnas_fast.cli.streams import OutputClosed
from pnas_fast.report.text import duration, percent
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.history import Epoch

LINE_SECONDS = 15.0
"""Elsewhere than on a terminal there is a line about this often, and after the first and last epoch."""


class Display:
    """Tells how far a training is; where it must be silent its console is quiet.

    Args:
        console: where to.
        config: of the training.
        steps: of an epoch.

    Attributes:
        heard: is told every epoch that is trained.
        closed: whether nobody reads any more what is said.
    """

    def __init__(self, console: Console, config: TrainConfig, steps: int) -> None:
        self._console = console
        self.closed = False
        self.heard: Callable[[Epoch], None] = lambda record: None
        self._epochs, self._steps, self._batch = config.epochs, steps, config.batch
        self._started = time.monotonic()
        self._done = 0
        self._said = float("-inf")
        self._last = ""
        whole = Column(no_wrap=True)
        columns = (
            TextColumn("[bold]epoch {task.fields[epoch]}", table_column=whole),
            BarColumn(bar_width=10, table_column=whole),
            # On a narrow terminal this column is the one that gives way.
            TextColumn("{task.fields[status]}", table_column=Column(overflow="ellipsis", no_wrap=True)),
        )
        self._progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._task = self._progress.add_task("", total=steps, epoch=f"-/{config.epochs}", status="")
        self._live = console.is_terminal
        if self._live:
            self._progress.start()

    def note(self, text: str) -> None:
        """Say one line."""
        with self._reader():
            say(self._console, text)

    def step(self, epoch: int, index: int, loss: float | None) -> None:
        """``index`` steps of an epoch, counted from 0, are done; now and then with their mean loss."""
        self._done += 1
        if loss is not None and self._live:
            status = f"loss {loss:.3f} · {self._last}{self._pace(epoch, index)}"
            with self._reader():
                self._progress.update(
                    self._task, completed=index, epoch=f"{epoch + 1}/{self._epochs}", status=status
                )
                self._progress.refresh()

    def epoch(self, record: Epoch, best: float) -> None:
        """An epoch is trained and judged."""
        self.heard(record)
        judged = record.judged
        self._last = "" if judged is None else f"{percent(judged, 2)} · "
        now, number = time.monotonic(), record.epoch
        if now - self._said >= LINE_SECONDS or number == self._epochs:
            self._said = now
            pace = self._pace(number - 1, self._steps)
            told = "" if judged is None else f", {percent(judged, 2)}, best {percent(best, 2)}"
            self.note(f"epoch {number}/{self._epochs}: loss {record.loss:.3f}{told} · {pace}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            with self._reader():
                self._progress.stop()

    @contextmanager
    def _reader(self) -> Iterator[None]:
        # What the training is at comes to its end first.
        try:
            yield
        except OutputClosed:
            self.closed = True

    def _pace(self, epoch: int, index: int) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        if not self._done:
            return ""
        left = (self._epochs - epoch) * self._steps - index
        text = f"{self._done * self._batch / seconds:,.0f} images/s"
        return f"{text} · {duration(left * seconds / self._done)} left" if left else text
