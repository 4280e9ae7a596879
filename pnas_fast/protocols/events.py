"""What happens in a run, as listeners are told it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pnas_fast.protocols.values import Measurement, Proposal, Task, Trial


@dataclass(frozen=True, slots=True)
class Said:
    """A line for people."""

    text: str


@dataclass(frozen=True, slots=True)
class Proposed:
    """A strategy asked for something, as the ``number``-th; ``known`` where it need not be evaluated."""

    number: int
    proposal: Proposal
    known: bool


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Progressed:
    """A child has seen so many images."""

    task: Task
    images: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A task is over; its worker had waited so many seconds for it, idle or starting."""

    task: Task
    measurement: Measurement
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Drained:
    """No task is left; workers had none for so many seconds, added up over ``workers``, since their last."""

    waited: float
    workers: int


@dataclass(frozen=True, slots=True)
class Told:
    """A trial reached the strategy; ``replayed`` where its measurement is from before this process."""

    trial: Trial
    replayed: bool


@dataclass(frozen=True, slots=True)
class Noted:
    """A strategy tells how far it is.

    ``values`` are JSON values. A ``kept`` note is stored, by its name and the number of trials told, and is
    the same whenever the run is replayed but for seconds; others are for the moment. Strategies that go by
    levels note ``level`` (kept: what a finished one gave), ``begun`` and ``scored``; ``final`` comes before
    the final trainings.
    """

    name: str
    values: Mapping[str, Any]
    kept: bool = False


Event = Said | Proposed | Started | Progressed | Finished | Drained | Told | Noted
"""Everything a listener may be told."""

ExecutorEvent = Started | Progressed | Finished | Drained
"""What an executor tells; the driver hands it on."""
