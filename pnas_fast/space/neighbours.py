"""Cells at random, and the cells next to a cell: all that differ from it in one input or one operation.

A new input is one of the cell's two, or any block but the block itself and those that read it, directly or
not; then blocks are put in an order again. So what is next to a cell does not depend on the order that its
blocks were written in: a change that one order allows, all allow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pnas_fast.space.cell import CELL_INPUTS, MAX_BLOCKS, Block, Cell, CellError, check_operations

Side = tuple[int, str]
"""An input and the operation on it."""


def draw(blocks: int, operations: Sequence[str], rng: np.random.Generator) -> Cell:
    """A cell of so many blocks with every input and operation drawn uniformly, as it was drawn.

    That makes a cell as likely as the orders and mirror images that it can be written in are many.

    Raises:
        CellError: a number of blocks or a list of operations outside the search space.
    """
    names = check_operations(operations)
    if not 1 <= blocks <= MAX_BLOCKS:
        raise CellError(f"cell of {blocks} blocks, allowed are 1 to {MAX_BLOCKS}")
    limits = np.array([[CELL_INPUTS + index, len(names)] * 2 for index in range(blocks)])
    rows = rng.integers(limits).tolist()
    return Cell(tuple(Block(in1, names[op1], in2, names[op2]) for in1, op1, in2, op2 in rows))


def mutate(cell: Cell, operations: Sequence[str], rng: np.random.Generator) -> Cell:
    """A cell next to another, canonical and never that cell itself.

    A block, one of its sides and whether its input or its operation changes are drawn uniformly, then the
    new value among those it may have. What gives the same cell, as the other of two twins does, is drawn
    again. This ends: a side that reads one of a cell's two inputs can always read the other.

    Raises:
        CellError: operations outside the search space, or the cell has one that is not among them.
    """
    parent, names = _checked(cell, operations)
    while True:
        index, side, kind = rng.integers([len(parent), 2, 2]).tolist()
        choices = _other_sides(parent, index, side, names)[kind]
        if choices:
            child = _changed(parent, index, side, choices[rng.integers(len(choices))])
            if child != parent:
                return child


def neighbours(cell: Cell, operations: Sequence[str]) -> list[Cell]:
    """All cells next to a cell, canonical, each once, in the order of their codes.

    Of five blocks and eight operations a cell has about 107; of one block up to 16; and at least one always.

    Raises:
        CellError: as `mutate`.
    """
    parent, names = _checked(cell, operations)
    found = {
        _changed(parent, index, side, choice)
        for index in range(len(parent))
        for side in range(2)
        for choices in _other_sides(parent, index, side, names)
        for choice in choices
    }
    return sorted(found - {parent}, key=lambda neighbour: neighbour.codes.tolist())


def _checked(cell: Cell, operations: Sequence[str]) -> tuple[Cell, tuple[str, ...]]:
    names = check_operations(operations)
    cell.check_operations(names)
    return cell.canonical(), names


def _other_sides(
    cell: Cell, index: int, side: int, operations: Sequence[str]
) -> tuple[list[Side], list[Side]]:
    """What may stand in place of a side of a block: with another input, with another operation."""
    source, operation = cell.blocks[index].sides[side]
    readers = {CELL_INPUTS + index}
    for later, block in enumerate(cell.blocks[index + 1 :], CELL_INPUTS + index + 1):
        if not readers.isdisjoint((block.in1, block.in2)):
            readers.add(later)
    inputs = [other for other in range(CELL_INPUTS + len(cell)) if other not in {source, *readers}]
    return [(other, operation) for other in inputs], [
        (source, other) for other in operations if other != operation
    ]


def _changed(cell: Cell, index: int, side: int, new: Side) -> Cell:
    rows = [list(block.sides) for block in cell.blocks]
    rows[index][side] = new
    return _ordered(rows).canonical()


def _ordered(rows: Sequence[Sequence[Side]]) -> Cell:
    """The cell of blocks that may read later ones, but not in a circle."""
    place = {source: source for source in range(CELL_INPUTS)}
    waiting = list(range(len(rows)))
    blocks = list[Block]()
    while waiting:
        index = next(index for index in waiting if all(source in place for source, _ in rows[index]))
        waiting.remove(index)
        (in1, op1), (in2, op2) = rows[index]
        place[CELL_INPUTS + index] = CELL_INPUTS + len(blocks)
        blocks.append(Block(place[in1], op1, place[in2], op2))
    return Cell(tuple(blocks))
