"""Where the parts of a cell's drawing go.

Every block has a column of its own and stands on the row of its depth, the length of the longest
chain of blocks below it. So nothing stands above or below a block but lines: an edge crosses to its
target's column in the empty band above its source's row and then goes straight up, and a block's
output goes straight up to the concatenation. No edge can pass through a box.
Lengths are inches, x to the right and y upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from pnas_fast.space import CELL_INPUTS, Block, Cell

BOX = (0.78, 0.44)
"""Width and height of an operation's box."""
INPUT_BOX = (0.92, 0.32)
"""Width and height of the boxes of the cell's inputs and output."""
ADD_RADIUS = 0.125
BAR_HEIGHT = 0.28

_PAIR_GAP = 0.12
_PAIR_WIDTH = 2 * BOX[0] + _PAIR_GAP
_COLUMN_PITCH = _PAIR_WIDTH + 0.34
_ADD_RISE = 0.27  # from the top of a block's operations to the centre of their sum
_BAND = 0.5  # the empty height above a row of blocks
_ASCENT = 0.1  # every edge goes straight up at least so far before its end
_ROW_PITCH = BOX[1] + _ADD_RISE + ADD_RADIUS + _BAND
_FAN = 0.09  # more height for the first band with every column that edges fan out to
_MARGIN = 0.12
_CROSSING = 1.5  # a crossing of two edges is as untidy as so many inches of edge

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from ``start``, the top of input ``source``, to ``end``, the bottom of an operation's box.

    It bends between ``start`` and ``bend`` and goes straight up from there.
    """

    source: int
    start: Point
    bend: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Layout:
    """The figure's size, and centres: of the two inputs, of each block's two operations and sum (in
    the cell's own order of blocks and sides), of the concatenation and of the output."""

    width: float
    height: float
    inputs: tuple[Point, Point]
    operations: tuple[tuple[Point, Point], ...]
    adds: tuple[Point, ...]
    bar: Point
    bar_width: float
    output: Point
    edges: tuple[Edge, ...]


def block_depths(cell: Cell) -> tuple[int, ...]:
    """For each block, how many blocks are on the longest chain of blocks below it."""
    depths: list[int] = []
    for block in cell.blocks:
        below = [depths[source - CELL_INPUTS] + 1 for source, _ in block.sides if source >= CELL_INPUTS]
        depths.append(max(below, default=0))
    return tuple(depths)


def lay_out(cell: Cell) -> Layout:
    """Place a cell, in the order of columns that gives the shortest edges with the fewest crossings."""
    layouts = (_place(cell, columns) for columns in permutations(range(len(cell))))
    return min(layouts, key=lambda layout: _untidiness(layout.edges))


def _place(cell: Cell, columns: Sequence[int]) -> Layout:
    """Place a cell whose block i stands in column ``columns[i]``."""
    width = len(cell) * _COLUMN_PITCH + 2 * _MARGIN
    inputs = _inputs(width)
    first_row = inputs[0][1] + INPUT_BOX[1] / 2 + _BAND + _FAN * len(cell)
    centres = [_MARGIN + (column + 0.5) * _COLUMN_PITCH for column in columns]
    bottoms = [first_row + depth * _ROW_PITCH for depth in block_depths(cell)]
    adds = tuple((x, y + BOX[1] + _ADD_RISE) for x, y in zip(centres, bottoms, strict=True))
    tops = [(x, y + INPUT_BOX[1] / 2) for x, y in inputs] + [(x, y + ADD_RADIUS) for x, y in adds]
    operations = tuple(
        _pair(block, (x, y + BOX[1] / 2), tops)
        for block, x, y in zip(cell.blocks, centres, bottoms, strict=True)
    )
    edges = [
        _edge(source, tops[source], centre, max(first_row, tops[source][1] + _BAND))
        for block, pair in zip(cell.blocks, operations, strict=True)
        for (source, _), centre in zip(block.sides, pair, strict=True)
    ]
    bar_y = max(y for _, y in adds) + ADD_RADIUS + 0.4 + BAR_HEIGHT / 2
    output_y = bar_y + BAR_HEIGHT / 2 + 0.28 + INPUT_BOX[1] / 2
    return Layout(
        width=width,
        height=output_y + INPUT_BOX[1] / 2 + _MARGIN,
        inputs=inputs,
        operations=operations,
        adds=adds,
        bar=(width / 2, bar_y),
        bar_width=width - _COLUMN_PITCH + _PAIR_WIDTH - 2 * _MARGIN,
        output=(width / 2, output_y),
        edges=tuple(edges),
    )


def _inputs(width: float) -> tuple[Point, Point]:
    """H[c-2] left and H[c-1] right of the middle."""
    offset = max(0.6 * INPUT_BOX[0], 0.2 * width)
    y = _MARGIN + INPUT_BOX[1] / 2
    return (width / 2 - offset, y), (width / 2 + offset, y)


def _pair(block: Block, centre: Point, tops: Sequence[Point]) -> tuple[Point, Point]:
    """Centres of a block's two operations; the one whose input comes from further left is left."""
    (x, y), half = centre, (BOX[0] + _PAIR_GAP) / 2
    left, right = (x - half, y), (x + half, y)
    return (left, right) if tops[block.in1][0] <= tops[block.in2][0] else (right, left)


def _edge(source: int, start: Point, operation: Point, bend_y: float) -> Edge:
    x, y = operation
    end = (x, y - BOX[1] / 2)
    return Edge(source, start, (x, min(bend_y, end[1]) - _ASCENT), end)


def _untidiness(edges: Sequence[Edge]) -> float:
    """Sideways length of all edges, and crossings within a band."""
    length = sum(abs(edge.start[0] - edge.end[0]) for edge in edges)
    crossings = sum(
        one.start[1] == other.start[1] and (one.start[0] - other.start[0]) * (one.end[0] - other.end[0]) < 0
        for one, other in combinations(edges, 2)
    )
    return length + _CROSSING * crossings
