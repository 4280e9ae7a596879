"""What an executor and its workers say to one another: one JSON object a line, never a pickle.

A worker is told a `Setup`, then tasks. It answers ``ready``, with its number of ``lanes``: of tasks that it
may be at. For each task, by its ``number``, follow ``images`` any number of times and ``result``; or
``machine`` or ``evaluator``, with a text, where the run cannot go on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import IO, Any

from pnas_fast.protocols import Measurement, Proposal, Spec, Task
from pnas_fast.space import Cell


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told first.

    ``device`` is its own, ``cpu`` or ``cuda:1``; ``data`` a folder that `shared_data` gave; what
    measurements leave goes into ``folder``; each operation is split over so many ``threads``. It may be at up
    to so many tasks side by side as there are ``lanes``.
    """

    evaluator: Spec
    device: str
    data: str
    folder: str
    threads: int
    lanes: int = 1


def send(stream: IO[str], message: dict[str, Any]) -> None:
    """Write one message and flush it."""
    stream.write(json.dumps(message, allow_nan=False) + "\n")
    stream.flush()


def receive(line: str) -> dict[str, Any]:
    """Read one message."""
    message: dict[str, Any] = json.loads(line)
    return message


def encode_setup(setup: Setup) -> dict[str, Any]:
    """A setup as JSON values."""
    return asdict(setup)


def decode_setup(values: dict[str, Any]) -> Setup:
    """The setup of `encode_setup`."""
    return Setup(**values | {"evaluator": Spec(**values["evaluator"])})


def encode_task(task: Task) -> dict[str, Any]:
    """A task as JSON values; what it runs beside is no business of the worker's."""
    proposal = task.proposal
    return {
        "number": task.number, "cell": str(proposal.cell), "budget": proposal.budget,
        "replica": proposal.replica, "note": dict(proposal.note), "seed": task.seed, "traced": task.traced,
    }  # fmt: skip


def decode_task(values: dict[str, Any]) -> Task:
    """The task of `encode_task`."""
    cell = Cell.parse(values["cell"])
    proposal = Proposal(cell, values["budget"], values["replica"], values["note"])
    return Task(values["number"], proposal, values["seed"], traced=values["traced"])


def encode_measurement(measurement: Measurement) -> dict[str, Any]:
    """A measurement as JSON values; all its numbers are finite."""
    return asdict(measurement)


def decode_measurement(values: dict[str, Any]) -> Measurement:
    """The measurement of `encode_measurement`."""
    curves = {name: tuple(curve) for name, curve in values["curves"].items()}
    return Measurement(**values | {"curves": curves})
