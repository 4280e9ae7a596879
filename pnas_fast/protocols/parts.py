"""The protocols: what a strategy, an evaluator, an executor, a data source and a listener must do.

Nothing here acts, and nobody needs to inherit from anything: a class with these methods is one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pnas_fast.protocols.events import Event, ExecutorEvent
from pnas_fast.protocols.values import Context, Measurement, Proposal, Spec, Task, Trial
from pnas_fast.space import Cell, Codes

Floats = npt.NDArray[np.float64]

Measuring = Generator[bool, None, Measurement]
"""An evaluation that stops after each of its steps, and with True wherever it waits for its device."""


class StrategyError(ValueError):
    """A strategy cannot go on; the message says why."""


class MachineError(RuntimeError):
    """The machine, not a cell, is at fault: the run stops, and the message says what to mend.

    Nothing is recorded against a cell. Running the same command again goes on.
    """


class EvaluatorError(ValueError):
    """An evaluator cannot answer at all (a file that lacks a cell, a function that is not there)."""


class Strategy(Protocol):
    """Which cells to look at.

    Its answers follow from its constructor's arguments and from the trials told to it, in order of their
    number. Neither the clock, nor the number of workers, nor what is still being trained may have a say: so a
    run is continued by telling it the stored trials again. It learns from `Trial.proposal`, not from its
    memory of what it proposed: on another machine a stored proposal may hold in place of its own.
    """

    @property
    def planned(self) -> int:
        """How many proposals it will make, at most and as far as is known: for people."""

    def ask(self) -> Sequence[Proposal]:
        """All that can be proposed from what was told. Empty while nothing is out: it is done."""

    def tell(self, trial: Trial) -> None:
        """Learn from the trial with the next number, which may have failed.

        Raises:
            StrategyError: the search cannot go on.
        """


class Evaluator(Protocol):
    """How good a cell is. Made in the worker from a `Spec`, and once more where the run is driven."""

    @property
    def identity(self) -> str:
        """Digest of all that changes a measurement but cell, budget, replica and the run's seed."""

    def effort(self, cell: Cell) -> float:
        """Roughly how long it takes, beside other cells: what takes longest is begun first."""

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        """Evaluate a cell.

        An `Exception` that it raises makes a failed measurement, with three exceptions: an OSError is the
        machine's fault, `EvaluatorError` stops the run, and a MemoryError or torch.OutOfMemoryError is tried
        again with the device to itself before it counts against the cell.
        """


@runtime_checkable
class Stepped(Protocol):
    """An `Evaluator` that can stop, so that a process may evaluate several cells side by side."""

    def measuring(self, proposal: Proposal, context: Context) -> Measuring:
        """`measure`, with a stop wherever another may go on.

        What it gives is the same whatever is done between two of its steps, on a GPU each with the same
        current stream. So it changes nothing that belongs to the whole process.
        """


class Executor(Protocol):
    """Where tasks run. Owns devices, processes, retries and deadlines; knows no strategy and no store."""

    def start(self, evaluator: Spec, data: DataSource) -> None:
        """Be ready for tasks of that evaluator."""

    def submit(self, task: Task) -> None:
        """Queue a task; returns at once."""

    def events(self) -> Iterator[ExecutorEvent]:
        """What has happened since: one event at least while anything is out, else none.

        Raises:
            MachineError: the machine is at fault.
        """

    def drain(self) -> None:
        """Begin no more tasks, and forget those that wait; `events` goes on until those that run are over.

        It may be called at any moment, also by a signal's handler.
        """

    def close(self) -> None:
        """End at once whatever runs."""


class DataSource(Protocol):
    """Where images come from."""

    @property
    def name(self) -> str:
        """For people, such as ``digits``."""

    def describe(self) -> Any:
        """Classes, image shape, numbers of images (`pnas_fast.data.Description`), without reading pixels."""

    def identity(self) -> str:
        """Digest of what the data are, wherever they lie."""

    def open(self) -> Any:
        """The data set, in the CPU's memory; read once."""


class Objective(Protocol):
    """One thing to be good at."""

    @property
    def name(self) -> str:
        """Of the value, such as ``accuracy``."""

    @property
    def unit(self) -> str:
        """Such as ``ms``; empty for a number without one."""

    @property
    def maximise(self) -> bool:
        """Whether more is better."""

    def of(self, trial: Trial) -> float:
        """Its value, NaN where the trial failed."""


class Cost(Objective, Protocol):
    """An objective that is known without training, and to be small."""

    @property
    def grows(self) -> bool:
        """Whether a cell never costs less than what it was grown from."""

    def most(self, blocks: int, operations: Sequence[str]) -> float:
        """The most, or somewhat more, that a cell of up to ``blocks`` blocks of these operations costs."""

    def least(self, blocks: int, operations: Sequence[str]) -> float:
        """The least, or somewhat less, that such a cell costs."""

    def before(self, codes: Codes) -> Floats:
        """Values (M,) of cells, int8 (M, b, 4)."""


class Listener(Protocol):
    """Display, report, record of notes, experiment tracker. It returns at once and decides nothing."""

    def on(self, event: Event) -> None:
        """Something happened."""


Emit = Callable[[Event], None]
"""Tells all listeners."""
