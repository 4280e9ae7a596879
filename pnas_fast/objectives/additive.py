"""Costs that are a sum over a cell's sides: known of hundreds of thousands of cells before any is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pnas_fast.protocols import Trial
from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Codes

INPUT_CLASSES = CELL_INPUTS + 1
"""Inputs that cost alike: H[c-2], H[c-1], and any block of the cell."""

_BITS = 40
"""Of a table's largest number: sums of so few such numbers are exact in float64, in any order."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AdditiveCost:
    """``const[b − 1] + Σ table[input class, operation]`` over the 2 b sides of a cell of b blocks.

    It is a `pnas_fast.protocols.Cost`. Of one cell it is the same number in whatever order its blocks are
    written: numbers that are not integers are rounded to 40 bits of the largest, so that sums are exact.

    Args:
        name: of the value, such as ``latency_ms``.
        unit: such as ``ms``; empty for a number without one.
        table: (3, 8): a row for H[c-2], for H[c-1] and for blocks, a column for each of
            `pnas_fast.space.OPERATIONS`, in code order.
        const: (5,): what a network with 1 to 5 blocks a cell costs without them.

    Raises:
        ValueError: a wrong shape, or a number that is not finite.
    """

    name: str
    unit: str
    table: Floats
    const: Floats

    maximise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field, shape in (("table", (INPUT_CLASSES, len(OPERATIONS))), ("const", (MAX_BLOCKS,))):
            values = np.array(getattr(self, field), np.float64)
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(
                    f"{self.name}: {field} has shape {values.shape}, allowed are finite numbers of {shape}"
                )
            object.__setattr__(self, field, values)
        quantum = _quantum(max(np.abs(self.table).max(), np.abs(self.const).max()))
        for values in (self.table, self.const):
            np.multiply(np.rint(values / quantum), quantum, out=values)
            values.flags.writeable = False

    @property
    def grows(self) -> bool:
        """Whether a cell never costs less than what it was grown from: then its limit holds for that, too."""
        two_sides = 2 * self.table.min()
        return bool((np.diff(self.const) + two_sides >= 0).all())

    def most(self, blocks: int, operations: Sequence[str]) -> float:
        """The most that a cell of up to ``blocks`` blocks of these operations costs."""
        codes = [OPERATIONS.index(name) for name in operations]
        outer, any_ = self.table[:CELL_INPUTS, codes].max(), self.table[:, codes].max()
        return float(max(self.const[b] + 2 * outer + 2 * b * any_ for b in range(blocks)))

    def least(self, blocks: int, operations: Sequence[str]) -> float:
        """The least that a cell of ``blocks`` blocks of these operations costs, or of fewer."""
        codes = [OPERATIONS.index(name) for name in operations]
        outer, any_ = self.table[:CELL_INPUTS, codes].min(), self.table[:, codes].min()
        return float(min(self.const[b] + 2 * outer + 2 * b * any_ for b in range(blocks)))

    def before(self, codes: Codes) -> Floats:
        """The cost float64 (M,) of cells int8 (M, b, 4)."""
        total = np.full(len(codes), self.const[codes.shape[1] - 1])
        flat = self.table.ravel()
        for block in range(codes.shape[1]):
            for side in (0, 2):
                of = np.minimum(codes[:, block, side], CELL_INPUTS).astype(np.intp)
                of *= len(OPERATIONS)
                of += codes[:, block, side + 1]
                total += flat[of]
        return total

    def of(self, trial: Trial) -> float:
        """The cost of a trial's cell, NaN where it failed."""
        return float(self.before(trial.cell.codes[np.newaxis])[0]) if trial.done else float("nan")

    def values(self) -> dict[str, Any]:
        """It as JSON values, which are the arguments."""
        return {
            "name": self.name, "unit": self.unit,
            "table": self.table.tolist(), "const": self.const.tolist(),
        }  # fmt: skip


def _quantum(largest: float) -> float:
    """The power of two that numbers are rounded to: 1 at most, which leaves integers as they are."""
    return float(2.0 ** min(0, int(np.frexp(largest)[1]) - _BITS))
