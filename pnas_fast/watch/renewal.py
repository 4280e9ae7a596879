"""A run's report as it is shown: made anew when somebody looks, and no more often than a core can bear."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from threading import Lock

from pnas_fast.cli.commands import one_line
from pnas_fast.protocols import MachineError

PAUSE_SECONDS = 3.0
"""Between two reports at the least."""

SHARE = 0.1
"""Of a core's time that may go into reports: a large run's take seconds each."""

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'"
"""A policy that lets nothing run."""

_DRAWING = f"{NOTHING}; style-src 'unsafe-inline'"

_WRITTEN = ("config.json", "trials.sqlite", "trials.sqlite-wal")
"""Files of a run that a search writes to while it goes on."""


@dataclass(frozen=True, slots=True)
class Document:
    """What is sent for an address: its media type, its content, and the policy that it is shown under."""

    kind: str
    content: bytes
    policy: str = NOTHING

    @property
    def tag(self) -> str:
        """What the content is known by."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class Shown:
    """All there is to see of a run, by address; there is no other before the clock says ``due``.

    ``fault`` is why there is no report, which the page then says; empty where there is one.
    """

    documents: Mapping[str, Document]
    due: float
    fault: str


class Renewal:
    """Makes a run's report in a thread, at most every `PAUSE_SECONDS`.

    Args:
        folder: the run's.
        pause: seconds between two reports, at the least.
    """

    def __init__(self, folder: Path, pause: float = PAUSE_SECONDS) -> None:
        self._folder, self._pause = folder, pause
        self._thread = ThreadPoolExecutor(1, "report")
        self._lock = Lock()
        self._coming: Future[Shown] | None = None
        self._last: Shown | None = None
        self._made_of: object = None

    def look(self) -> Shown:
        """The last report; the next one is begun where the run has changed. Only the first look waits."""
        with self._lock:
            if self._coming is not None and self._coming.done():
                self._last, self._coming = self._coming.result(), None
            if self._coming is None and self._is_due():
                self._made_of = self._stamp()
                self._coming = self._thread.submit(self._make)
            last, coming = self._last, self._coming
        if last is not None:
            return last
        assert coming is not None
        return coming.result()

    def _is_due(self) -> bool:
        if self._last is None:
            return True
        return time.monotonic() >= self._last.due and (
            bool(self._last.fault) or self._stamp() != self._made_of
        )

    def _stamp(self) -> object:
        """What differs where somebody has written to the run."""
        found = []
        for name in _WRITTEN:
            try:
                status = (self._folder / name).stat()
                found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                continue
        return found

    def _make(self) -> Shown:
        begun, fault = time.thread_time(), ""
        try:
            documents = report_documents(self._folder)
        except Exception as error:
            if not isinstance(error, ValueError | MachineError | OSError):
                traceback.print_exc()  # a defect of ours: the page says it in a line, and goes on
            fault = one_line(error) or type(error).__name__
            documents = fault_documents(fault)
        pause = max(self._pause, (time.thread_time() - begun) / SHARE) if self._pause else 0.0
        return Shown(documents, time.monotonic() + pause, fault)


def report_documents(folder: Path) -> dict[str, Document]:
    """A run's page, its figures and its trials, by address.

    Raises:
        RunError, ConfigError, StoreError, MachineError, OSError: see `pnas_fast.report.page.render_report`.
    """
    # Importing PyTorch and matplotlib takes seconds, which nobody need spend who is not looked at.
    from pnas_fast.report.page import FIGURES, TRIALS_CSV, render_report

    script = files("pnas_fast.watch").joinpath("live.js").read_text(encoding="utf-8")
    report = render_report(folder, script)
    figures = {
        f"{FIGURES}/{name}": Document("image/svg+xml", figure.encode(), _DRAWING)
        for name, figure in report.figures.items()
    }
    return {
        "": Document("text/html; charset=utf-8", report.page.encode(), report.policy),
        TRIALS_CSV: Document("text/csv; charset=utf-8", report.trials.encode()),
        **figures,
    }


def fault_documents(why: str) -> dict[str, Document]:
    """A page that says why there is no report, and looks for one by itself."""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="3">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>No report yet: {escape(why)}</title><p>No report yet: {escape(why)}</p></html>"
    )
    return {"": Document("text/html; charset=utf-8", page.encode())}


Look = Callable[[], Shown]
"""What tells what there is to see."""
