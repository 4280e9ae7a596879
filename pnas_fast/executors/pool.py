"""Children side by side in long-lived worker processes, and what happens when one fails or dies."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import ChildResult
from pnas_fast.executors.fork_server import ForkServerError
from pnas_fast.executors.messages import Setup, Task, decode_result
from pnas_fast.executors.process import Start, Worker, start_worker

ATTEMPTS = 2
"""How often a child is tried that runs out of memory or whose worker dies, the last time alone."""

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
    """A child is done or has failed, on a device; its worker had waited for it, idle or starting."""

    task: Task
    result: ChildResult
    device: str
    waited: float


@dataclass(frozen=True, slots=True)
class Drained:
    """All children are done; workers had no more of them for so many seconds, added up over workers."""

    waited: float


Event = Started | Progress | Finished | Drained


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker's place on a device, the process there, and since when it waits for a task."""

    device: _Device
    worker: Worker | None = None
    idle_since: float = 0.0

    @property
    def busy(self) -> bool:
        return self.worker is not None and self.worker.task is not None


@dataclass(slots=True, eq=False)
class _Device:
    """A CPU or a GPU, and the children that must have it for themselves.

    While there are some, its workers take no others; when all have finished theirs, they end, and a new
    one in the ``reserved`` seat trains one such child.
    """

    name: str
    seats: list[_Seat] = field(default_factory=list)
    alone: deque[Task] = field(default_factory=deque)
    reserved: _Seat | None = None

    def open_seats(self) -> list[_Seat]:
        """Seats that may have a process and a task now."""
        if self.reserved is None and self.alone and not any(seat.busy for seat in self.seats):
            for seat in self.seats:
                _dismiss(seat)
            self.reserved = self.seats[0]
        if self.reserved is not None:
            return [self.reserved]
        return [] if self.alone else self.seats

    def tasks_for(self, seat: _Seat, waiting: deque[Task]) -> deque[Task]:
        """What a seat takes its next task from."""
        return self.alone if seat is self.reserved else waiting


class WorkerPool:
    """Trains children in a process for each of some devices' seats.

    Args:
        devices: a device for each process, say ``["cuda:0", "cuda:1", "cuda:0", "cuda:1"]``.
        settings: of every child, with backend and device resolved.
        folder: the run; workers leave weights in its ``children`` and complaints in its ``workers.log``.
        data: what `pnas_fast.executors.shared_data` gave.
        probe_seconds: children are only tried, for about so long each (`pnas_fast.evaluation.probe`).
        start: starts a worker's process.

    Use it as a context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        devices: Sequence[str],
        settings: TrainingSettings,
        folder: Path,
        data: Path,
        probe_seconds: float | None = None,
        start: Start = start_worker,
    ) -> None:
        self._time_limit = settings.time_limit
        # What is tried is tried among others: alone it would say nothing.
        self._attempts = ATTEMPTS if probe_seconds is None else 1
        self._start = start
        folder = folder.resolve()
        self._setup = (settings, str(data.resolve()), str(folder), probe_seconds)
        self._log = folder / LOG
        self._inbox: queue.Queue[tuple[Worker, Any]] = queue.Queue()
        self._devices = {name: _Device(name) for name in devices}
        self._seats = [_Seat(self._devices[name]) for name in devices]
        for seat in self._seats:
            seat.device.seats.append(seat)
        self._stillborn = 0
        self._tries: dict[int, int] = {}
        self._waited: dict[int, float] = {}

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Train children, yielding events as they happen; every task has one `Finished`, then one `Drained`.

        Raises:
            ExecutorError: workers do not start.
        """
        waiting = deque(tasks)
        unfinished = len(tasks)
        for seat in self._seats:
            seat.idle_since = time.monotonic()
        while unfinished:
            self._start_processes(unfinished)
            for event in self._next_events(waiting):
                unfinished -= isinstance(event, Finished)
                yield event
        now = time.monotonic()
        yield Drained(sum(now - seat.idle_since for seat in self._seats))

    def _start_processes(self, unfinished: int) -> None:
        open_seats = [seat for device in self._devices.values() for seat in device.open_seats()]
        missing = unfinished - sum(seat.worker is not None for seat in self._seats)
        for seat in self._seats:
            if seat.worker is None and seat in open_seats and missing > 0:
                settings, data, folder, probe_seconds = self._setup
                setup = Setup(settings, seat.device.name, data, folder, probe_seconds)
                try:
                    seat.worker = Worker(self._start, setup, self._log, self._inbox)
                except ForkServerError as error:
                    self._count_stillborn(str(error))
                missing -= 1

    def _next_events(self, waiting: deque[Task]) -> Iterator[Event]:
        for device in self._devices.values():
            for seat in device.open_seats():
                tasks = device.tasks_for(seat, waiting)
                if seat.worker is not None and seat.worker.ready and not seat.busy and tasks:
                    yield self._assign(seat, seat.worker, tasks.popleft())
        yield from self._end_hanging()
        try:
            worker, message = self._inbox.get(timeout=0.2)
        except queue.Empty:
            return
        for seat in self._seats:
            if seat.worker is worker:
                yield from self._bury(seat) if message is None else self._understand(seat, worker, message)

    def _assign(self, seat: _Seat, worker: Worker, task: Task) -> Started:
        waited = time.monotonic() - seat.idle_since
        self._waited[task.position] = self._waited.get(task.position, 0.0) + waited
        worker.assign(task, self._time_limit + GRACE_SECONDS)
        return Started(task)

    def _understand(self, seat: _Seat, worker: Worker, message: dict[str, Any]) -> Iterator[Event]:
        if "fatal" in message:
            raise ExecutorError(message["fatal"])
        if "ready" in message:
            worker.ready = True
        elif "result" in message:
            result = decode_result(message["result"])
            task = worker.release()
            if result.out_of_memory or message.get("unusable"):
                _dismiss(seat)
            if result.out_of_memory:
                if self._try_again(seat, task):
                    return
                if self._attempts == ATTEMPTS:
                    result.error = f"{result.error} ({ATTEMPTS} times, the last time alone)"
            yield self._finish(seat, task, result)
        else:
            assert worker.task is not None
            yield Progress(worker.task, message["images"])

    def _finish(self, seat: _Seat, task: Task, result: ChildResult) -> Finished:
        seat.idle_since = time.monotonic()
        if seat.device.reserved is seat:
            seat.device.reserved = None
        self._tries.pop(task.position, None)
        return Finished(task, result, seat.device.name, self._waited.pop(task.position))

    def _try_again(self, seat: _Seat, task: Task) -> bool:
        """Whether a child has another try: alone on its device, for others may have taken the memory."""
        tries = self._tries[task.position] = self._tries.get(task.position, 0) + 1
        if tries == self._attempts:
            return False
        seat.idle_since = time.monotonic()
        if seat.device.reserved is seat:
            seat.device.reserved = None
        seat.device.alone.append(task)
        return True

    def _bury(self, seat: _Seat) -> Iterator[Event]:
        """A worker has died: its child is tried once more, then recorded as failed."""
        worker = seat.worker
        assert worker is not None
        seat.worker = None
        reason = _death(worker.kill())
        if worker.task is None:
            if not worker.ready:
                self._count_stillborn(reason)
        elif not self._try_again(seat, worker.task):
            result = ChildResult(error=f"the worker died {self._attempts} times ({reason})")
            yield self._finish(seat, worker.task, result)

    def _count_stillborn(self, reason: str) -> None:
        self._stillborn += 1
        if self._stillborn > self._attempts * len(self._seats):
            raise ExecutorError(f"workers do not start ({reason}): see {self._log}")

    def _end_hanging(self) -> Iterator[Event]:
        now = time.monotonic()
        for seat in self._seats:
            if seat.worker is not None and seat.worker.deadline < now:
                task = seat.worker.release()
                _dismiss(seat)
                seconds = self._time_limit + GRACE_SECONDS
                error = f"hung: no result {GRACE_SECONDS:g} s past the time limit of {self._time_limit:g} s"
                yield self._finish(seat, task, ChildResult(seconds=seconds, error=error))

    def close(self) -> None:
        """End all workers at once."""
        for seat in self._seats:
            _dismiss(seat)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _dismiss(seat: _Seat) -> None:
    if seat.worker is not None:
        seat.worker.kill()
        seat.worker = None


def _death(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"
