"""What a search and its workers say to one another: one JSON object a line, never a pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import IO, Any

from pnas_fast.training import ChildResult


@dataclass(frozen=True, slots=True)
class Task:
    """A child to train: its place in the search, its cell's text, its seed."""

    position: int
    cell: str
    seed: int


def send(stream: IO[str], message: dict[str, Any]) -> None:
    """Write one message and flush it."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def receive(line: str) -> dict[str, Any]:
    """Read one message."""
    message: dict[str, Any] = json.loads(line)
    return message


def encode_result(result: ChildResult) -> dict[str, Any]:
    """A result as JSON values. A number that is not finite cannot be among them: such a child failed."""
    return asdict(result)


def decode_result(values: dict[str, Any]) -> ChildResult:
    """The result of `encode_result`."""
    return ChildResult(**values)
