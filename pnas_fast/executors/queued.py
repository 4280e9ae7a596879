"""What executors of tasks side by side have in common: what waits, what is out, what is to be told."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from pnas_fast.executors import faults
from pnas_fast.executors.seats import Alone
from pnas_fast.protocols import (
    Drained,
    EvaluatorError,
    ExecutorEvent,
    Finished,
    MachineError,
    Measurement,
    Task,
)


class _Lane(Protocol):
    idle_since: float

    def waited(self) -> float: ...


class _Device(Protocol):
    alone: deque[Alone]


class Queued(ABC):
    """Queue and events of an executor, which is closed where its context is left."""

    _seats: Sequence[Any]
    _devices: Mapping[Any, _Device]

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._events: deque[ExecutorEvent] = deque()
        self._fault: MachineError | EvaluatorError | None = None
        self._out = 0
        self._draining = False
        self._waited: dict[int, float] = {}

    def submit(self, task: Task) -> None:
        """Queue a task; returns at once."""
        if not self._out:
            now = time.monotonic()
            for lane in self._lanes():
                lane.idle_since = now
        self._out += 1
        self._waiting.append(task)

    def events(self) -> Iterator[ExecutorEvent]:
        """What has happened since: one event at least while anything is out, else none.

        Every task has one `Started` for each time it is tried and one `Finished`; after the last, one
        `Drained`. What finished before a fault is told before the fault is raised.

        Raises:
            MachineError: a machine is at fault.
            EvaluatorError: the evaluator cannot be made, or cannot answer at all.
        """
        while self._out and not self._events and self._fault is None:
            try:
                if self._draining:
                    self._forget_waiting()
                self._advance()
            except OSError as error:
                self._fault = MachineError(faults.of_os(error))
            except (MachineError, EvaluatorError) as fault:
                self._fault = fault
        if self._fault is not None and not self._events:
            raise self._fault
        while self._events:
            yield self._events.popleft()

    def drain(self) -> None:
        """Begin no more tasks; see `pnas_fast.protocols.Executor`."""
        self._draining = True

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""

    @abstractmethod
    def _advance(self) -> None:
        """Begin what can be begun, and hear what has been said."""

    def _forget_waiting(self) -> None:
        self._out -= len(self._waiting)
        self._waiting.clear()
        for device in self._devices.values():
            self._out -= len(device.alone)
            device.alone.clear()

    def _tell_finished(self, task: Task, measurement: Measurement) -> None:
        self._events.append(Finished(task, measurement, self._waited.pop(task.number)))
        self._out -= 1
        if not self._out:
            lanes = self._lanes()
            self._events.append(Drained(sum(lane.waited() for lane in lanes), len(lanes)))

    def _lanes(self) -> Sequence[_Lane]:
        """The places of tasks: of a seat's process there may be several."""
        return self._seats

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
