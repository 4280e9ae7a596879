"""The report, written while the next level's children train."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self


class ReportWriter:
    """Writes the report of a run's folder in a thread, once at a time.

    Use it as a context manager: leaving it waits until the last one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "report")
        self._last: Future[None] | None = None

    def write(self) -> None:
        """Begin to write what the store holds by now.

        Raises:
            OSError: the folder could not be written the time before.
        """
        self._wait()
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
        if error is None:
            self._wait()


def _write(folder: Path) -> None:
    # Importing matplotlib takes a third of a second, which the first child need not wait for.
    from pnas_fast.report.page import write_report

    write_report(folder)
