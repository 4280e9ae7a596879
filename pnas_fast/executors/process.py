"""One worker process, as its executor sees it."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from pnas_fast.executors import launch
from pnas_fast.executors.fork_server import Forked
from pnas_fast.executors.messages import Setup, encode_setup, encode_task, receive, send
from pnas_fast.protocols import Task
from pnas_fast.running import Watched

WORKER = "pnas_fast.executors.worker"

END_SECONDS = 5.0
"""How long a process that has closed its output may take to end by itself."""


class Program:
    """A process of its own that a command starts; the same as `Forked`.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], stderr: IO[bytes]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, encoding="utf-8",
            env=launch.environment(),
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid, self.stdin, self.stdout = self._process.pid, self._process.stdin, self._process.stdout

    def end(self, seconds: float = 0.0) -> int:
        """See `Forked.end`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        self._process.kill()
        return self._process.wait()


Process = Forked | Program

Start = Callable[[IO[bytes], str], Process]
"""Starts a process for a device whose standard error is added to a file, with pipes for the other streams."""

Inbox = queue.Queue[tuple["Worker", Any]]


class Worker:
    """A process, and a thread that reads its replies.

    Args:
        start: starts the process.
        setup: sent first.
        log: its standard error is added to this file.
        inbox: gets (this worker, message), and (this worker, None) when the process ends.

    Attributes:
        ready: whether it has said so.
        overdue: whether it was given up.
        watched: how long it has run, or been stopped, since it was started.

    Raises:
        OSError: the log cannot be written, or the process cannot be started.
        ForkServerError: it cannot be forked.
    """

    def __init__(self, start: Start, setup: Setup, log: Path, inbox: Inbox) -> None:
        with log.open("ab") as errors:
            self._process = start(errors, setup.device)
        self.pid = self._process.pid
        self.ready = self.overdue = False
        self.watched = Watched(self.pid)
        self._send(encode_setup(setup))
        self._inbox = inbox
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def process(self) -> Process:
        """The process."""
        return self._process

    def assign(self, task: Task) -> None:
        """Give it a task."""
        self._send(encode_task(task))

    def kill(self) -> None:
        """End the process at once."""
        self.end(0.0)

    def end(self, seconds: float = END_SECONDS) -> int:
        """Its exit code; it is killed if it has not ended after so many seconds."""
        code = self._process.end(seconds)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return code

    def give_up(self) -> None:
        """End the process at once; the inbox gets what it had replied, and then its end."""
        self.overdue = True
        self.kill()
        # A process that it has started may keep its output open.
        self._listener.join(END_SECONDS)
        self._inbox.put((self, None))

    def _send(self, message: dict[str, Any]) -> None:
        # A worker that has died is noticed by its closed output.
        with contextlib.suppress(BrokenPipeError):
            send(self._process.stdin, message)

    def _listen(self) -> None:
        # Closed here: a process may have ended and been replaced before this thread first reads.
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # a worker killed while it writes leaves half a line
                    self._inbox.put((self, receive(line)))
        self._inbox.put((self, None))
