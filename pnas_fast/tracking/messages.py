"""What a run tells the process of a tracker, and what that answers: a JSON object a line.

This module, like all that such a process imports of this package, needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

Parameters = dict[str, str | int | float | bool | list[str] | None]

Ending = Literal["done", "stopped", "failed"]


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """A run begins, or goes on.

    Attributes:
        name: of the run, for people.
        identity: letters that differ between runs.
        known: what the tool called this run before; empty where it is new to the tool.
        folder: the tool's own, in the run's folder, for a tool that writes files.
        parameters: the configuration.
        step: no point of this step or a later one has been logged.
    """

    name: str
    identity: str
    known: str
    folder: str
    parameters: Parameters
    step: int


class Point(msgspec.Struct, frozen=True):
    """Something to log.

    Attributes:
        kind: ``trial``, ``note`` or ``epoch``.
        number: counts the points of a kind from 0, always alike.
        step: where it stands in the tool's charts.
        values: finite numbers by name.
        texts: texts by name.
        done: False for a failed trial, which may be made again.
    """

    kind: str
    number: int
    step: int
    values: dict[str, float]
    texts: dict[str, str] = {}
    done: bool = True


class Points(msgspec.Struct, frozen=True, tag="points"):
    """Points in the order in which they were made."""

    points: list[Point]


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """A run is over, or is to be gone on with another time.

    Attributes:
        ending: how it ended.
        step: beyond that of every point.
        figures: PNG files.
        files: others worth keeping.
    """

    ending: Ending
    step: int = 0
    figures: list[str] = []
    files: list[str] = []


Message = Begin | Points | Finish


class Answer(msgspec.Struct, frozen=True):
    """What became of a message: the tool's name for a run that began, or why it failed in one line."""

    known: str = ""
    error: str | None = None


class Tool(Protocol):
    """What a tracker does with messages. Whatever it raises ends the tracker, and nothing else."""

    def begin(self, begin: Begin) -> str:
        """Begin a run or go on with it; what the tool calls it."""

    def log(self, points: Sequence[Point]) -> None:
        """Log points, so that they are still there if this process is killed."""

    def finish(self, finish: Finish) -> None:
        """Add what a finished run left, and say how it ended."""
