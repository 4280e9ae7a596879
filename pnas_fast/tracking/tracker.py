"""A tracker as its run sees it: it is told things and returns at once, whatever its tool is at.

A thread hands on what waits in a queue of a bounded length to a process with the tool, and keeps how far
that is. What fails or hangs there costs the run one line for people.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from copy import deepcopy
from pathlib import Path

import msgspec

from pnas_fast.executors import launch
from pnas_fast.foreign import reason
from pnas_fast.tracking.messages import Answer, Begin, Finish, Message, Point, Points
from pnas_fast.tracking.state import State

WAITING = 10_000
"""Points that may wait; what comes when so many do is dropped."""

BATCH = 500
"""Points handed on at a time."""

HOST = "pnas_fast.tracking.host"


class TrackerError(Exception):
    """The tool, or its process, is of no use any more; the message says why."""


class Tracker:
    """One tool, in a process of its own.

    Args:
        name: of the tracker, for people.
        tool: its `Tool`, as ``package.module:Class``.
        begin: what is said first; what is known of the run is put in from ``state``.
        state: what the tool was told before.
        path: where that is kept.
    """

    def __init__(self, name: str, tool: str, begin: Begin, state: State, path: Path) -> None:
        self.name = name
        self._tool, self._path, self._state = tool, path, state
        self._begin = msgspec.structs.replace(begin, known=state.known, step=state.step)
        self._before = deepcopy(state)
        self._changed = threading.Condition()
        self._waiting, self._lost = deque[Point](), list[Point]()
        self._finish: Finish | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False
        self._warning: str | None = None
        self._drops = 0
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def offer(self, point: Point) -> None:
        """Have a point logged, unless it was before. Returns at once."""
        if not self._before.lacks(point):
            return
        with self._changed:
            if self._over:
                return
            if len(self._waiting) < WAITING:
                self._waiting.append(point)
                self._changed.notify()
            else:
                self._lost.append(point)
                self._drops += 1

    def warning(self) -> str | None:
        """A line for people that has not been taken yet; there is one at most."""
        warning, self._warning = self._warning, None
        return warning

    def finish(self, finish: Finish) -> None:
        """Have the tool end, after all that waits; `wait` sees to it."""
        with self._changed:
            self._finish = finish
            self._changed.notify()

    def wait(self, until: float) -> None:
        """Wait for the end, and at that moment of ``time.monotonic`` give up what has not ended."""
        try:
            self._thread.join(max(until - time.monotonic(), 0.0))
        finally:
            if self._thread.is_alive():
                self._fail("it did not end in time and was given up")
                self._kill()

    def _work(self) -> None:
        try:
            self._path.parent.mkdir(exist_ok=True)
            self._process = self._started()
            if self._over:  # and was given up before there was a process to end
                return
            self._state.known = self._send(self._begin).known
            self._keep()
            while points := self._next():
                self._send(Points(points))
                for point in points:
                    self._state.logged(point)
                self._keep()
            assert self._finish is not None
            self._send(msgspec.structs.replace(self._finish, step=self._state.step))
            self._end()
        except Exception as error:  # whatever it is, the run goes on
            self._fail(reason(error))
        finally:
            self._kill()
            self._close()

    def _started(self) -> subprocess.Popen[bytes]:
        # In a session of its own, it can be ended with all that its tool has started.
        return subprocess.Popen(
            launch.command(HOST, tool=self._tool),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=launch.environment(),
            start_new_session=True,
        )

    def _next(self) -> list[Point]:
        """Points that wait, in order; none once all are logged and it is to finish."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finish is not None)
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _keep(self) -> None:
        with self._changed:
            lost, self._lost = self._lost, []
        for point in lost:
            self._state.dropped(point)
        self._state.save(self._path)

    def _send(self, message: Message) -> Answer:
        """What the tool answers.

        Raises:
            TrackerError: it failed, or its process has ended.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        with contextlib.suppress(OSError):  # a process that has ended is noticed by what it does not answer
            process.stdin.write(msgspec.json.encode(message) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line.endswith(b"\n"):
            raise TrackerError(f"its process ended by itself, with status {process.wait()}")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error is not None:
            raise TrackerError(answer.error)
        return answer

    def _end(self) -> None:
        """Wait until the process has ended, and what its tool still had to send is sent."""
        self._keep()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        if self._drops:
            self._fail(f"it was too slow for {self._drops:,} points; the same command run again adds them")

    def _fail(self, why: str) -> None:
        with self._changed:
            if not self._over:
                self._warning = f"--track {self.name}: {why}"
            self._over = True
            self._waiting.clear()

    def _kill(self) -> None:
        """End the process, and all that its tool has started, at once."""
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)

    def _close(self) -> None:
        """Leave nothing of a process that has ended, or been killed."""
        process = self._process
        if process is not None:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # what was not yet sent
                    pipe.close()
