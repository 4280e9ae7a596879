"""Ratios of fused to eager time that the gate compares with: bench/baseline.json.

    {"margin": 0.2, "step_at_most": 0.67,
     "instruction_sets": {"avx2": {"torch": "2.13.0", "ratios": {CASE: RATIO, ...}}, ...}}

``margin`` is the noise: the share by which a ratio may be worse than its baseline. ``step_at_most`` is the
largest ratio a whole training step may have on any machine. Ratios depend on the instruction set, so each
has its own; they depend on how fast eager is too, hence torch's version.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pnas_fast.files import write_text


class BaselineError(ValueError):
    """A baseline that cannot be read; the message is one line for people."""


@dataclass(frozen=True)
class Measured:
    """Ratios of one instruction set, by case, and the torch they were measured with."""

    torch: str
    ratios: dict[str, float]


@dataclass
class Baseline:
    """What is in the file."""

    margin: float
    step_at_most: float
    instruction_sets: dict[str, Measured]

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """The baseline in a file.

        Raises:
            BaselineError: no such file, or something in it is not as it must be.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BaselineError(f"{path}: {' '.join(str(error).split())}") from None
        try:
            return cls._of(found)
        except BaselineError as error:
            raise BaselineError(f"{path}: {error}") from None

    def write(self, path: Path) -> None:
        """Replace a file."""
        write_text(path, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def _of(cls, found: Any) -> Baseline:
        fields = _fields("the file", found, {"margin", "step_at_most", "instruction_sets"})
        sets = _object("instruction_sets", fields["instruction_sets"])
        return cls(
            _positive("margin", fields["margin"]),
            _positive("step_at_most", fields["step_at_most"]),
            {name: _measured(name, value) for name, value in sets.items()},
        )


def _measured(name: str, found: Any) -> Measured:
    fields = _fields(name, found, {"torch", "ratios"})
    ratios = _object(f"ratios of {name}", fields["ratios"])
    return Measured(str(fields["torch"]), {case: _positive(case, ratio) for case, ratio in ratios.items()})


def _fields(name: str, found: Any, wanted: set[str]) -> dict[str, Any]:
    fields = _object(name, found)
    if set(fields) != wanted:
        raise BaselineError(f"{name} holds {sorted(fields)}, allowed are {sorted(wanted)}")
    return fields


def _object(name: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise BaselineError(f"{name} is {found!r}, allowed is an object")
    return found


def _positive(name: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < float("inf"):
        raise BaselineError(f"{name} is {found!r}, allowed is a number above 0")
    return float(found)
