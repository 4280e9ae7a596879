"""The PNAS search space: operations, blocks and cells, and when two cells are the same.

A cell is a sequence of blocks. A block applies one operation to each of two inputs and adds the
results; its inputs are the outputs of the two preceding cells and of earlier blocks of its own cell
(Liu et al., "Progressive Neural Architecture Search", ECCV 2018, section 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pnas_fast.space.operations import OPERATIONS

MAX_BLOCKS = 5
"""The most blocks a cell may have (the paper's B)."""

CELL_INPUTS = 2
"""Inputs a cell has from outside: 0 is the cell before the previous one, 1 the previous cell."""

_CODE = {name: code for code, name in enumerate(OPERATIONS)}
_BLOCK_TEXT = re.compile(r"(\d{1,2}):(\w+)\+(\d{1,2}):(\w+)", re.ASCII)

Codes = npt.NDArray[np.int8]


class CellError(ValueError):
    """A cell, block or operation list outside the search space; the message names what is allowed."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block: ``op1(in1) + op2(in2)``.

    Inputs are 0 (H[c-2]), 1 (H[c-1]) or ``2 + j`` for block j of the same cell; operations are names
    from `OPERATIONS`. Whether an input exists depends on the block's place, so `Cell` checks it.
    """

    in1: int
    op1: str
    in2: int
    op2: str

    def __str__(self) -> str:
        return f"{self.in1}:{self.op1}+{self.in2}:{self.op2}"

    @property
    def sides(self) -> tuple[tuple[int, str], tuple[int, str]]:
        """The two (input, operation) pairs."""
        return (self.in1, self.op1), (self.in2, self.op2)


@dataclass(frozen=True, slots=True)
class Cell:
    """An immutable, hashable, ordered sequence of 1 to `MAX_BLOCKS` blocks.

    Equality is equality of the text: use `canonical()` to compare up to isomorphism.

    Raises:
        CellError: no blocks, too many, an unknown operation, or a reference to the block itself, to
            a later block or to nothing. The message names the block and what it may be.
    """

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.blocks) <= MAX_BLOCKS:
            raise CellError(f"cell has {len(self.blocks)} blocks, allowed are 1 to {MAX_BLOCKS}")
        check_blocks(self.blocks, _CODE)

    @classmethod
    def parse(cls, text: str, operations: Sequence[str] = OPERATIONS) -> Cell:
        """Read a cell from text such as ``0:sep5x5+0:max_pool3x3,1:sep7x7+2:identity``.

        Args:
            text: blocks ``in:op+in:op`` joined by commas, nothing else.
            operations: the operations the search space is restricted to.

        Raises:
            CellError: the text is malformed or names a cell outside the space.
        """
        cell = cls(parse_blocks(text))
        cell.check_operations(operations)
        return cell

    def check_operations(self, operations: Sequence[str]) -> None:
        """Raise `CellError` where a block uses an operation that is not among ``operations``."""
        for index, block in enumerate(self.blocks):
            for _, operation in block.sides:
                if operation not in operations:
                    raise CellError(
                        f"block {index} ({block}): operation {operation!r} is not in this search space, "
                        f"allowed are {' '.join(operations)}"
                    )

    @classmethod
    def from_codes(cls, codes: npt.ArrayLike) -> Cell:
        """The cell of an integer array (blocks, 4) with columns in1, op1, in2, op2.

        Raises:
            CellError: a wrong shape, an operation code or an input out of range.
        """
        array = np.asarray(codes)
        if array.ndim != 2 or array.shape[1] != 4 or not np.issubdtype(array.dtype, np.integer):
            raise CellError(
                f"codes are {array.dtype} of shape {array.shape}, allowed are integers of shape (blocks, 4)"
            )
        blocks = []
        for index, (in1, op1, in2, op2) in enumerate(array.tolist()):
            for code in (op1, op2):
                if not 0 <= code < len(OPERATIONS):
                    raise CellError(
                        f"block {index}: operation code {code}, allowed are 0 to {len(OPERATIONS) - 1}"
                    )
            blocks.append(Block(in1, OPERATIONS[op1], in2, OPERATIONS[op2]))
        return cls(tuple(blocks))

    @property
    def codes(self) -> Codes:
        """The cell as int8 (blocks, 4) with columns in1, op1, in2, op2."""
        return np.array(
            [(block.in1, _CODE[block.op1], block.in2, _CODE[block.op2]) for block in self.blocks],
            dtype=np.int8,
        )

    def canonical(self) -> Cell:
        """The representative of this cell's isomorphism class.

        Two cells are the same when swapping the sides of blocks and reordering blocks (with
        references renamed) turns one into the other. The representative is the lexicographically
        least valid ordering, in code columns (in1, op1, in2, op2).
        """
        rows = _least_order([tuple(map(int, row)) for row in self.codes], (), ())
        return Cell.from_codes(np.array(rows, dtype=np.int8))

    def __len__(self) -> int:
        return len(self.blocks)

    def __str__(self) -> str:
        return ",".join(map(str, self.blocks))


def check_blocks(blocks: Sequence[Block], operations: Collection[str]) -> None:
    """Raise `CellError` for the first unknown operation or input that does not exist where it is read."""
    for index, block in enumerate(blocks):
        for source, operation in block.sides:
            if operation not in operations:
                raise CellError(
                    f"block {index} ({block}): unknown operation {operation!r}, "
                    f"allowed are {' '.join(operations)}"
                )
            if not 0 <= source < CELL_INPUTS + index:
                raise CellError(
                    f"block {index} ({block}): input {source} does not exist there, "
                    f"allowed are 0 to {CELL_INPUTS + index - 1}"
                )


def parse_blocks(text: str) -> tuple[Block, ...]:
    """Blocks from text ``in:op+in:op`` joined by commas; what they name is not checked.

    Raises:
        CellError: the text is malformed.
    """
    blocks = []
    for index, part in enumerate(text.split(",")):
        match = _BLOCK_TEXT.fullmatch(part)
        if match is None:
            raise CellError(f"block {index}: {part!r} is not of the form in:op+in:op")
        in1, op1, in2, op2 = match.groups()
        blocks.append(Block(int(in1), op1, int(in2), op2))
    return tuple(blocks)


Row = tuple[int, ...]


def _least_order(rows: list[Row], placed: tuple[int, ...], ordered: tuple[Row, ...]) -> tuple[Row, ...]:
    """Complete a partial ordering of blocks to the least one.

    ``placed`` holds the original indices in their new order and ``ordered`` their renamed rows. At
    each position the least available row wins; equal rows are twins that only later references can
    tell apart, so each is tried.
    """
    if len(placed) == len(rows):
        return ordered
    renamed = {0: 0, 1: 1} | {CELL_INPUTS + old: CELL_INPUTS + new for new, old in enumerate(placed)}
    available = [
        (tuple(sum(sorted([(renamed[row[0]], row[1]), (renamed[row[2]], row[3])]), ())), index)
        for index, row in enumerate(rows)
        if index not in placed and row[0] in renamed and row[2] in renamed
    ]
    least = min(available)[0]
    return min(
        _least_order(rows, (*placed, index), (*ordered, row)) for row, index in available if row == least
    )


def check_operations(names: Iterable[str]) -> tuple[str, ...]:
    """A restricted operation list in code order.

    Raises:
        CellError: empty, unknown or repeated names.
    """
    given = tuple(names)
    if not given:
        raise CellError(f"no operations given, allowed are {' '.join(OPERATIONS)}")
    for name in given:
        if name not in _CODE:
            raise CellError(f"unknown operation {name!r}, allowed are {' '.join(OPERATIONS)}")
    if len(set(given)) < len(given):
        raise CellError(f"operations {' '.join(given)} name one twice, allowed is each once")
    return tuple(sorted(given, key=_CODE.__getitem__))
