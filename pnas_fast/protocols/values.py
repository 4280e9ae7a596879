"""The values that strategies, evaluators, executors, stores and listeners hand to one another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pnas_fast.space import Cell

Note = Mapping[str, float | int | str]
"""What a strategy wants remembered of a proposal: JSON values that only its own readers understand."""


FINAL = "final"
"""In the note of a training for the final choice: the finalist's rank."""


class Key(NamedTuple):
    """What a measurement is remembered by; ``cell`` is the canonical text, ``evaluator`` its identity."""

    cell: str
    budget: int
    replica: int
    evaluator: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy wants to know: how good a cell is after ``budget`` epochs, the ``replica``-th time.

    Replicas differ in the child's seed and nothing else. ``note`` is the strategy's own (level, parent,
    prediction, …): stored with the proposal, shown by the report's section of that strategy.
    """

    cell: Cell
    budget: int
    replica: int = 0
    note: Note = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether it is for the final choice, which nothing of the search hears of."""
        return FINAL in self.note

    def key(self, evaluator: str) -> Key:
        """What the measurement of this proposal by an evaluator of that identity is remembered by."""
        return Key(str(self.cell.canonical()), self.budget, self.replica, evaluator)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What evaluating a cell gave.

    ``values`` by name and unit: ``accuracy`` (validation, in [0, 1]), ``validation_loss`` (cross-entropy),
    ``loss`` (training, the last epoch's mean), ``seconds``, ``images_seen``, ``parameters``,
    ``multiply_adds``, or whatever a user's function returned. ``curves`` hold a value an epoch
    (``loss``). A failed one has an ``error`` of one line and perhaps some values; it failed for what the
    cell and its recipe did, never for what the machine did. ``device`` is where it was made, if known.
    """

    status: Literal["done", "failed"]
    values: Mapping[str, float]
    error: str | None = None
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    device: str | None = None

    @property
    def done(self) -> bool:
        """Whether it did not fail."""
        return self.status == "done"


@dataclass(frozen=True, slots=True)
class Trial:
    """The ``number``-th proposal of a run and its measurement: the one form that a child has."""

    number: int
    proposal: Proposal
    measurement: Measurement

    @property
    def cell(self) -> Cell:
        """The proposed cell."""
        return self.proposal.cell

    @property
    def done(self) -> bool:
        """Whether it did not fail."""
        return self.measurement.done

    def value(self, name: str) -> float:
        """A measured value, NaN where it was not measured."""
        return self.measurement.values.get(name, float("nan"))

    @property
    def accuracy(self) -> float:
        """The validation accuracy in [0, 1]; NaN for a failed trial."""
        return self.value("accuracy") if self.done else float("nan")

    @property
    def order(self) -> tuple[float, float, int]:
        """A done trial's rank: of two, the better has the greater.

        By accuracy, then by lower validation loss, then the earlier number. Accuracy has steps of one
        image, so that ties are common; cross-entropy breaks them.
        """
        loss = self.value("validation_loss")
        return self.accuracy, -loss if loss == loss else float("-inf"), -self.number


@dataclass(frozen=True, slots=True)
class Task:
    """A proposal on its way to a worker.

    ``number`` is that of the first proposal that asked for it. An ``exclusive`` task runs with nothing
    beside it on its device. A ``traced`` one leaves a profile of a few steps in the run's folder.
    """

    number: int
    proposal: Proposal
    seed: int
    exclusive: bool = False
    traced: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """How to make an evaluator anywhere: ``package.module:Class`` and its arguments as JSON values."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """What an evaluator is told besides the proposal.

    ``data`` is the opened data set, on ``device``. Files that a measurement leaves go under ``folder``, the
    run's, with the task's ``number`` in their names. ``report`` is told the images seen so far.
    """

    number: int
    seed: int
    data: Any
    device: str
    folder: Path
    report: Callable[[int], None]
    traced: bool = False


def child_seed(seed: int, proposal: Proposal) -> int:
    """A child's seed, from the run's, its canonical cell and its replica alone: 63 bits of SHA-256.

    The budget has no say: a child that trains longer begins as the shorter one did.
    """
    replica = f" {proposal.replica}" if proposal.replica else ""
    digest = hashlib.sha256(f"{seed} {proposal.cell.canonical()}{replica}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
