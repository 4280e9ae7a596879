"""One worker process, as the search sees it."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pnas_fast.executors import fork_server
from pnas_fast.executors.fork_server import Forked
from pnas_fast.executors.messages import Setup, Task, encode_setup, receive, send

WORKER = "pnas_fast.executors.worker"

Process = subprocess.Popen[str] | Forked

Start = Callable[[IO[bytes], str], Process]
"""Starts a process for a device whose standard error is added to a file, with pipes for the other streams."""


def start_worker(stderr: IO[bytes], device: str) -> Process:
    """Start a worker.

    Raises:
        ForkServerError: it cannot be forked.
    """
    # A second is nothing beside a child on a GPU, and forking has not been tried with CUDA.
    if fork_server.AVAILABLE and device == "cpu":
        return fork_server.fork_server(WORKER).fork(stderr)
    return start_program([sys.executable, "-m", WORKER], stderr, device)


def start_program(command: Sequence[str], stderr: IO[bytes], device: str) -> Process:
    """Start a command's process, whatever the device."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, encoding="utf-8")


class Worker:
    """A process, a thread that reads its replies, and the task it is at.

    Args:
        start: starts the process.
        setup: sent first.
        log: its standard error is added to this file.
        inbox: gets (this worker, message), and (this worker, None) when the process ends.
    """

    def __init__(self, start: Start, setup: Setup, log: Path, inbox: queue.Queue[tuple[Worker, Any]]) -> None:
        with log.open("ab") as errors:
            self._process = start(errors, setup.device)
        self.task: Task | None = None
        self.deadline = float("inf")
        self.ready = False
        self._send(encode_setup(setup))
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    @property
    def process(self) -> Process:
        """The process."""
        return self._process

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # A worker that has died is noticed by its closed output.
        with contextlib.suppress(BrokenPipeError):
            send(self._process.stdin, message)

    def _listen(self, inbox: queue.Queue[tuple[Worker, Any]]) -> None:
        assert self._process.stdout is not None
        # Closed here: a process may have ended and been replaced before this thread first reads.
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # a worker killed while it writes leaves half a line
                    inbox.put((self, receive(line)))
        inbox.put((self, None))

    def assign(self, task: Task, seconds: float) -> None:
        """Give it a task, to be done within so many seconds."""
        self.task = task
        self.deadline = time.monotonic() + seconds
        self._send(asdict(task))

    def release(self) -> Task:
        """It is done with its task."""
        task = self.task
        assert task is not None
        self.task = None
        self.deadline = float("inf")
        return task

    def kill(self) -> int:
        """End the process; its exit code."""
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        return code
