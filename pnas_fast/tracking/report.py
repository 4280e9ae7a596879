"""The report, written while children train."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from pnas_fast.protocols import Event, Finished, Noted

EVERY_SECONDS = 60.0
"""A report takes seconds of a core that a child could have, and nobody reads one that is soon replaced."""


class ReportWriter:
    """Writes the report of a run's folder in a thread: after the first child, then every minute at most.

    Use it as a context manager: leaving it writes what has not been written and waits until it is.

    Args:
        folder: the run.
        every: seconds between two reports.
        at_once: whether there is one after the first child, and not only when ``every`` have passed.
    """

    def __init__(self, folder: Path, every: float = EVERY_SECONDS, at_once: bool = True) -> None:
        self._folder, self._every = folder, every
        self._thread = ThreadPoolExecutor(1, "report")
        self._last: Future[None] | None = None
        self._due = time.monotonic() + (0.0 if at_once else every)
        self._is_late = False

    def on(self, event: Event) -> None:
        """Begin to write where something is worth it and the last report is old enough.

        Raises:
            OSError: the folder could not be written the time before.
        """
        if not isinstance(event, Finished) and not (isinstance(event, Noted) and event.kept):
            return
        self._is_late = True
        if self._last is not None and not self._last.done():
            return
        if time.monotonic() >= self._due:
            self._wait()
            self._is_late = False
            self._due = time.monotonic() + self._every
            self._last = self._thread.submit(_write, self._folder)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        try:
            self._wait()
            if self._is_late:
                _write(self._folder)
        except Exception:
            if error is None:
                raise


def _write(folder: Path) -> None:
    # Importing matplotlib takes a third of a second, which the first child need not wait for.
    from pnas_fast.report.page import write_report

    write_report(folder)
