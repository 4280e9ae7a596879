"""The operations of the search space: one row each, with all that is known of one without building it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pnas_fast.space.cell import Cell


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Its module is in `pnas_fast.network.operations`, the colours behind ``colour`` in
    `pnas_fast.report.palette`.

    Attributes:
        name: as cells spell it.
        kind: what people read of it, such as ``sep``.
        size: of its kernel, as people read it, such as ``3×3``; empty without one.
        effort: roughly how much longer a child with it takes than one without, beside the other rows'.
        colour: the key of its colours in figures; related operations have related ones.
    """

    name: str
    kind: str
    size: str
    effort: float
    colour: str

    @property
    def label(self) -> str:
        """The operation on one line, for people."""
        return f"{self.kind} {self.size}".rstrip()


OPERATION_TABLE: tuple[Operation, ...] = (
    Operation("sep3x3", "sep", "3×3", 2.0, "pale blue"),
    Operation("sep5x5", "sep", "5×5", 3.0, "blue"),
    Operation("sep7x7", "sep", "7×7", 4.0, "deep blue"),
    Operation("conv1x7_7x1", "conv", "1×7, 7×1", 5.0, "green"),
    Operation("identity", "identity", "", 0.0, "grey"),
    Operation("avg_pool3x3", "avg pool", "3×3", 0.0, "yellow"),
    Operation("max_pool3x3", "max pool", "3×3", 1.0, "orange"),
    Operation("dil_conv3x3", "dil conv", "3×3", 1.0, "violet"),
)
"""The eight operations, in code order: an operation's code is its row, and stored cells rely on it."""

OPERATIONS: tuple[str, ...] = tuple(row.name for row in OPERATION_TABLE)
"""Their names, in code order."""

_EFFORT = {row.name: row.effort for row in OPERATION_TABLE}


def effort(cell: Cell) -> float:
    """Roughly how long a cell's child takes beside others of as many blocks: its sides' efforts added."""
    return sum(_EFFORT[operation] for block in cell.blocks for _, operation in block.sides)
