"""The report, written while the next level's children train."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_SECONDS = 60.0
"""A report takes seconds of a core that a child could have, and nobody reads one that is soon replaced."""


class ReportWriter:
    """Writes the report of a run's folder in a thread, once at a time and not more often than every minute.

    Use it as a context manager: leaving it writes what has not been written and waits until it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "report")
        self._last: Future[None] | None = None
        self._begun = time.monotonic()
        self._is_late = False

    def write(self) -> None:
        """Begin to write what the store holds by now, unless it is too soon.

        Raises:
            OSError: the folder could not be written the time before.
        """
        self._wait()
        self._is_late = time.monotonic() < self._begun + EVERY_SECONDS
        if self._is_late:
            self._last = self._thread.submit(_prepare)
        else:
            self._begun = time.monotonic()
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


def _prepare() -> None:
    # Importing matplotlib takes a third of a second, which the first child need not wait for.
    import pnas_fast.report.page  # noqa: F401


def _write(folder: Path) -> None:
    from pnas_fast.report.page import write_report

    write_report(folder)
