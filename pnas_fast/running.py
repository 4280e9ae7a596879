"""Running time: what passes on the clock while a process is neither stopped nor kept waiting for a core.

A limit in seconds is about what somebody does with them. A search that is suspended for the night, frozen
with its container, or that shares its cores with others has not had that time.
"""

from __future__ import annotations

import time
from pathlib import Path

LONGEST_LOOK = 2.0
"""Seconds. What is longer between two looks passed while the process that looks was stopped."""

_SHORTEST_LOOK = 0.25  # what is asked more often is not worth a look into /proc


class RunningTime:
    """This thread's running time from now on, if somebody looks every now and then."""

    def __init__(self) -> None:
        self._before = 0.0
        self._looked, self._worked, self._queued = (
            time.monotonic(),
            time.thread_time(),
            _queued("thread-self"),
        )

    def seconds(self) -> float:
        """How much it is by now."""
        passed = time.monotonic() - self._looked
        if passed < _SHORTEST_LOOK:
            return self._before + passed
        worked, queued = time.thread_time(), _queued("thread-self")
        # A step may take longer than a look, but then the thread has worked all along.
        most = max(LONGEST_LOOK, worked - self._worked)
        self._before += max(0.0, min(passed - (queued - self._queued), most))
        self._looked, self._worked, self._queued = self._looked + passed, worked, queued
        return self._before


class Watched:
    """Another process, from now on.

    Attributes:
        running: its main thread's running time, in seconds, as far as this process was running too.
        stopped: seconds for which it was stopped, by a signal or a debugger, while this process was running.
    """

    def __init__(self, pid: int) -> None:
        self.running = self.stopped = 0.0
        self._pid = str(pid)
        self._looked, self._queued = time.monotonic(), _queued(self._pid)

    def look(self) -> None:
        """Bring both up to date; to be called at least every second."""
        now, queued = time.monotonic(), _queued(self._pid)
        passed = min(now - self._looked, LONGEST_LOOK)
        if _state(self._pid) in ("T", "t"):
            self.stopped += passed
        else:
            self.running += max(0.0, passed - max(0.0, queued - self._queued))
        self._looked, self._queued = now, queued


def _queued(process: str) -> float:
    """Seconds for which a process's main thread was ready to run and had no core; 0 where nobody counts."""
    try:
        return int(Path("/proc", process, "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _state(process: str) -> str:
    try:
        # After the name, which is in brackets and may hold anything.
        return Path("/proc", process, "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
