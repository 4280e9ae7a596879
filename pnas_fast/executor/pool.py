"""Children side by side in long-lived worker processes, and what happens when one dies."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pnas_fast.executor.messages import Task, decode_result, receive, send
from pnas_fast.training import ChildResult, TrainingSettings

ATTEMPTS = 2
"""How often a child is tried whose worker dies: the machine may have killed it for another's memory."""

GRACE_SECONDS = 30.0
"""A worker this long past its child's time limit hangs and is killed."""

LOG = "workers.log"


class ExecutorError(ValueError):
    """Workers cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Progress:
    """A child has seen so many images."""

    task: Task
    images: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A child is done or has failed."""

    task: Task
    result: ChildResult


Event = Started | Progress | Finished


class _Worker:
    """One process, a thread that reads its replies, and the task it is at."""

    def __init__(
        self, command: Sequence[str], setup: dict[str, Any], log: Path, inbox: queue.Queue[Any]
    ) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
        self.task: Task | None = None
        self.deadline = float("inf")
        self.ready = False
        self._send(setup)
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # A worker that has died is noticed by its closed output.
        with contextlib.suppress(BrokenPipeError):
            send(self._process.stdin, message)

    def _listen(self, inbox: queue.Queue[Any]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # a worker killed while it writes leaves half a line
                inbox.put((self, receive(line)))
        inbox.put((self, None))

    def assign(self, task: Task, time_limit: float) -> None:
        self.task = task
        self.deadline = time.monotonic() + time_limit + GRACE_SECONDS
        self._send(asdict(task))

    def release(self) -> None:
        self.task = None
        self.deadline = float("inf")

    def kill(self) -> int:
        """End the process; its exit code."""
        self._process.kill()
        code = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        return code


class WorkerPool:
    """Trains children in ``workers`` processes.

    Args:
        workers: processes side by side.
        settings: of every child, with backend and device resolved.
        folder: the run; workers leave weights in its ``children`` and complaints in its ``workers.log``.
        command: starts a worker.

    Use it as a context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        workers: int,
        settings: TrainingSettings,
        folder: Path,
        command: Sequence[str] = (sys.executable, "-m", "pnas_fast.executor.worker"),
    ) -> None:
        self._count = workers
        self._time_limit = settings.time_limit
        self._command = command
        self._setup = {"settings": _settings_values(settings), "folder": str(folder.resolve())}
        self._log = folder / LOG
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._workers: list[_Worker] = []
        self._stillborn = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Train children, yielding events as they happen; every task has one `Finished`.

        Raises:
            ExecutorError: workers do not start.
        """
        waiting = deque(tasks)
        tries: dict[int, int] = {}
        unfinished = len(tasks)
        while unfinished:
            while len(self._workers) < min(self._count, unfinished):
                self._workers.append(_Worker(self._command, self._setup, self._log, self._inbox))
            for event in self._next_events(waiting, tries):
                unfinished -= isinstance(event, Finished)
                yield event

    def _next_events(self, waiting: deque[Task], tries: dict[int, int]) -> Iterator[Event]:
        for worker in self._workers:
            if worker.ready and worker.task is None and waiting:
                task = waiting.popleft()
                worker.assign(task, self._time_limit)
                yield Started(task)
        yield from self._end_hanging()
        try:
            worker, message = self._inbox.get(timeout=0.2)
        except queue.Empty:
            return
        if worker not in self._workers:
            return
        if message is None:
            yield from self._bury(worker, waiting, tries)
        else:
            yield from self._understand(worker, message)

    def _understand(self, worker: _Worker, message: dict[str, Any]) -> Iterator[Event]:
        if "fatal" in message:
            raise ExecutorError(message["fatal"])
        if "ready" in message:
            worker.ready = True
        elif worker.task is not None and "result" in message:
            task = worker.task
            worker.release()
            yield Finished(task, decode_result(message["result"]))
        elif worker.task is not None:
            yield Progress(worker.task, message["images"])

    def _bury(self, worker: _Worker, waiting: deque[Task], tries: dict[int, int]) -> Iterator[Event]:
        """A worker has died: its child is tried once more, then recorded as failed."""
        self._workers.remove(worker)
        reason = _death(worker.kill())
        task = worker.task
        if task is None:
            self._stillborn += not worker.ready
            if self._stillborn > ATTEMPTS * self._count:
                raise ExecutorError(f"workers do not start ({reason}): see {self._log}")
            return
        tries[task.position] = tries.get(task.position, 0) + 1
        if tries[task.position] < ATTEMPTS:
            waiting.appendleft(task)
        else:
            yield Finished(task, ChildResult(error=f"the worker died {ATTEMPTS} times ({reason})"))

    def _end_hanging(self) -> Iterator[Event]:
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline < now]:
            task = worker.task
            assert task is not None
            self._workers.remove(worker)
            worker.kill()
            seconds = self._time_limit + GRACE_SECONDS
            error = f"hung: no result {GRACE_SECONDS:g} s past the time limit of {self._time_limit:g} s"
            yield Finished(task, ChildResult(seconds=seconds, error=error))

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _settings_values(settings: TrainingSettings) -> dict[str, Any]:
    """The settings' own fields, where ``settings`` may be a configuration that has more."""
    return {name: getattr(settings, name) for name in TrainingSettings.__dataclass_fields__}


def _death(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"
