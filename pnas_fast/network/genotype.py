"""What the cells of a network are: blocks, which of a cell's states leave it, and two kinds of cell.

A searched `Cell` has eight operations, one kind, and all its blocks leave it. Published networks
(docs/method.md, 6.1) have normal and reduction cells, operations of their own and other concatenations.
"""

from __future__ import annotations

from dataclasses import dataclass

from pnas_fast.network.operations import EXTRA_OPERATIONS
from pnas_fast.space import CELL_INPUTS, OPERATIONS, Block, Cell, CellError, check_blocks, parse_blocks

_ARROW = "=>"


@dataclass(frozen=True, slots=True)
class Wiring:
    """Blocks, and the states whose concatenation is the cell's output, in this order.

    States are counted as inputs of blocks are: 0 is H[c-2], 1 is H[c-1], ``2 + j`` is block j.

    Raises:
        CellError: no blocks, an operation or a state that does not exist, or no output.
    """

    blocks: tuple[Block, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        check_blocks(self.blocks, (*OPERATIONS, *EXTRA_OPERATIONS))
        states = CELL_INPUTS + len(self.blocks)
        if not self.blocks or not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise CellError(
                f"{len(self.blocks)} blocks with outputs {self.outputs}, "
                "allowed are one or more of each, no output twice"
            )
        if not all(0 <= state < states for state in self.outputs):
            raise CellError(f"outputs {self.outputs}: allowed are states 0 to {states - 1}")

    @classmethod
    def parse(cls, text: str) -> Wiring:
        """Read a wiring from text: blocks as in a cell's, then ``=>`` and its outputs.

        ``1:sep5x5+0:sep3x3,0:identity+2:avg_pool3x3=>0,2,3`` has two blocks and concatenates H[c-2] and
        both. Without ``=>`` the outputs are all the blocks.

        Raises:
            CellError: malformed text, or a wiring that is refused.
        """
        blocks_text, arrow, outputs_text = text.partition(_ARROW)
        blocks = parse_blocks(blocks_text)
        if not arrow:
            return cls(blocks, _all_blocks(blocks))
        parts = outputs_text.split(",")
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise CellError(f"outputs {outputs_text!r}, allowed are states joined by commas, such as 0,2,3")
        return cls(blocks, tuple(map(int, parts)))

    def __str__(self) -> str:
        text = ",".join(map(str, self.blocks))
        if self.outputs == _all_blocks(self.blocks):
            return text
        return f"{text}{_ARROW}{','.join(map(str, self.outputs))}"


@dataclass(frozen=True, slots=True)
class Genotype:
    """The two kinds of cell of a network; a searched cell is both."""

    normal: Wiring
    reduction: Wiring

    @classmethod
    def of(cls, cell: Cell) -> Genotype:
        """The genotype of a searched cell: one kind, all blocks concatenated (docs/method.md, 1.1)."""
        wiring = Wiring(cell.blocks, _all_blocks(cell.blocks))
        return cls(wiring, wiring)

    @classmethod
    def parse(cls, normal: str, reduction: str | None = None) -> Genotype:
        """The genotype of its wirings' texts; without a second one both are the same.

        Raises:
            CellError: as `Wiring.parse`.
        """
        wiring = Wiring.parse(normal)
        return cls(wiring, wiring if reduction is None else Wiring.parse(reduction))


def _all_blocks(blocks: tuple[Block, ...]) -> tuple[int, ...]:
    return tuple(range(CELL_INPUTS, CELL_INPUTS + len(blocks)))
