"""Tasks one after the other in this process: for tests, and for functions that only a notebook knows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pnas_fast.evaluation.guard import make_evaluator, measure
from pnas_fast.evaluation.reasons import is_out_of_memory
from pnas_fast.executors import faults
from pnas_fast.executors.settings import settled
from pnas_fast.protocols import (
    Context,
    DataSource,
    Drained,
    Evaluator,
    ExecutorEvent,
    Finished,
    MachineError,
    Measurement,
    Progressed,
    Spec,
    Started,
    Task,
)


class InlineExecutor:
    """Runs a task whenever its events are asked for; see `pnas_fast.protocols.Executor`.

    Measurements are those of a worker process, to the bit. There is no deadline but the evaluator's own,
    and an evaluation that ends the process ends the run.

    Args:
        folder: the run's.
        device: of all tasks.
        threads: over which each operation on a CPU is split.
    """

    def __init__(self, folder: Path, device: str = "cpu", threads: int = 1) -> None:
        self._folder, self._device, self._threads = folder.resolve(), device, threads
        self._waiting: deque[Task] = deque()
        self._begun: Task | None = None
        self._events: deque[ExecutorEvent] = deque()
        self._draining = False
        self._evaluator: Evaluator | None = None
        self._data: Any = None

    def start(self, evaluator: Spec, data: DataSource) -> None:
        """Open the data and make the evaluator.

        Raises:
            EvaluatorError: the evaluator cannot be made.
        """
        self._data = data.open().to(self._device)
        self._evaluator = make_evaluator(evaluator)

    def submit(self, task: Task) -> None:
        """Queue a task."""
        self._waiting.append(task)

    def events(self) -> Iterator[ExecutorEvent]:
        """Begin the next task, or run the one that has begun to its end.

        Raises:
            MachineError: the machine is at fault.
            EvaluatorError: the evaluator cannot answer at all.
        """
        if self._draining:
            self._waiting.clear()
            self._begun = None  # it has been said to, and has not
        if not self._events:
            if self._begun is not None:
                self._run(self._begun)
            elif self._waiting:
                self._begun = self._waiting.popleft()
                self._events.append(Started(self._begun))
        while self._events:
            yield self._events.popleft()

    def drain(self) -> None:
        """Begin no more tasks; see `pnas_fast.protocols.Executor`."""
        self._draining = True

    def close(self) -> None:
        """Forget what is queued."""
        self._waiting.clear()
        self._begun = self._data = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, task: Task) -> None:
        seen: list[int] = []
        try:
            with settled(self._threads):
                measurement = self._measure(task, seen)
        except OSError as error:
            raise MachineError(faults.of_os(error)) from error
        self._begun = None
        self._events.extend(Progressed(task, images) for images in seen)
        self._events.append(Finished(task, measurement))
        if not self._waiting:
            self._events.append(Drained(0.0, 1))

    def _measure(self, task: Task, seen: list[int]) -> Measurement:
        assert self._evaluator is not None, "start() comes first"
        context = Context(
            task.number, task.seed, self._data, self._device, self._folder, seen.append, task.traced
        )
        for again in (False, True):
            measurement = measure(self._evaluator, task.proposal, context)
            if measurement.done or not is_out_of_memory(measurement.error or ""):
                return measurement
            if not again:
                seen.clear()
        return replace(measurement, error=f"{measurement.error} (2 times, the last time alone)")
