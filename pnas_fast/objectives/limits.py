"""Objectives and limits as a person writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ACCURACY = "accuracy"

COSTS = {
    "parameters": "parameters",
    "multiply_adds": "multiply_adds",
    "latency": "latency_ms",
    "memory": "memory_mib",
}
"""Objectives beside accuracy, and the values they are of; a limit names the value, with its unit."""

_LIMIT = re.compile(r"\s*(\w+)\s*(<=|≤)\s*(\S+)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a value may be."""

    name: str
    most: float

    def __str__(self) -> str:
        return f"{self.name}<={self.most:.12g}"


def parse_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Names of objectives in their order, accuracy first.

    Raises:
        ValueError: accuracy is not among them, or a name is unknown or comes twice.
    """
    given = [name.strip() for name in names]
    for name in given:
        if name not in (ACCURACY, *COSTS) or given.count(name) > 1:
            raise ValueError(
                f"objectives are {','.join(given)!r}: found {name!r}, allowed are {ACCURACY} and any of "
                f"{' '.join(COSTS)}, each once"
            )
    if ACCURACY not in given:
        raise ValueError(f"objectives are {','.join(given)!r}, allowed is {ACCURACY} and any costs beside it")
    return (ACCURACY, *(name for name in COSTS if name in given))


def parse_limit(text: str) -> Bound:
    """The bound of a text such as ``parameters<=3e6``.

    Raises:
        ValueError: the text is something else, or the bound is not a number above 0.
    """
    match = _LIMIT.fullmatch(text)
    allowed = f"allowed is NAME<=NUMBER, a name being one of {' '.join(COSTS.values())}"
    if match is None or match[1] not in COSTS.values():
        raise ValueError(f"limit is {text!r}, {allowed}")
    try:
        most = float(match[3])
    except ValueError:
        most = math.nan
    if not 0 < most < math.inf:
        raise ValueError(f"limit is {text!r}: found {match[3]!r}, allowed is a number above 0")
    return Bound(match[1], most)


def parse_limits(texts: Sequence[str]) -> tuple[Bound, ...]:
    """The bounds of several texts, in the order of their names.

    Raises:
        ValueError: as `parse_limit`, or a value has two of them.
    """
    bounds = sorted((parse_limit(text) for text in texts), key=lambda bound: bound.name)
    for one, other in pairwise(bounds):
        if one.name == other.name:
            raise ValueError(f"limits are {one} and {other}, allowed is one of {one.name}")
    return tuple(bounds)
