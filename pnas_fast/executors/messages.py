"""What a search and its workers say to one another: one JSON object a line, never a pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import IO, Any

from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import ChildResult


@dataclass(frozen=True, slots=True)
class Task:
    """A child to train: its place in the search, its cell's text, its seed, and whether to trace it first."""

    position: int
    cell: str
    seed: int
    profile: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told first.

    ``device`` is its own, ``cpu`` or ``cuda:1``; ``data`` a folder that `shared_data` gave; the weights of
    children go into ``folder``. With ``probe_seconds`` children are only tried, for about so long each.
    """

    settings: TrainingSettings
    device: str
    data: str
    folder: str
    probe_seconds: float | None = None


def send(stream: IO[str], message: dict[str, Any]) -> None:
    """Write one message and flush it."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def receive(line: str) -> dict[str, Any]:
    """Read one message."""
    message: dict[str, Any] = json.loads(line)
    return message


def encode_setup(setup: Setup) -> dict[str, Any]:
    """A setup as JSON values."""
    # The settings' own fields, where they may be a configuration that has more.
    own = {name: getattr(setup.settings, name) for name in TrainingSettings.__dataclass_fields__}
    return {name: getattr(setup, name) for name in Setup.__slots__} | {"settings": own}


def decode_setup(values: dict[str, Any]) -> Setup:
    """The setup of `encode_setup`."""
    return Setup(**values | {"settings": TrainingSettings(**values["settings"])})


def encode_result(result: ChildResult) -> dict[str, Any]:
    """A result as JSON values. A number that is not finite cannot be among them: such a child failed."""
    return asdict(result)


def decode_result(values: dict[str, Any]) -> ChildResult:
    """The result of `encode_result`."""
    return ChildResult(**values)
