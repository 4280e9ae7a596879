"""The drawing of a cell: inputs below, blocks as pairs of operations and their sum, concatenation above."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from pnas_fast.report.layout import ADD_RADIUS, BAR_HEIGHT, BOX, INPUT_BOX, Edge, Layout, Point, lay_out
from pnas_fast.report.palette import (
    BOX_INK,
    INK,
    INPUT_COLOURS,
    MUTED,
    OPERATION_STYLES,
    RULE,
    SURFACE,
    OperationStyle,
)
from pnas_fast.space import CELL_INPUTS, Cell

_INPUT_NAMES = ("H[c−2]", "H[c−1]")
_ARROW = (0.075, 0.085)
_ON_TOP = 4  # boxes and text lie above all lines


def draw_cell(cell: Cell) -> Figure:
    """Draw a cell of 1 to 5 blocks as a directed graph from its inputs (bottom) to its output (top).

    Every block is two operations, each with the edge from its input below it, and a circled plus; the
    number below the plus is the block's input index (``2 + j`` for block j), as in the cell's text.
    All blocks' outputs go to the concatenation. Edges from H[c−2], from H[c−1] and from blocks have
    different colours; an input that no block uses is dashed. The figure is as large as its content
    (inches), and its only axes fill it.
    """
    layout = lay_out(cell)
    figure = Figure(figsize=(layout.width, layout.height), facecolor=SURFACE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, layout.width), ylim=(0, layout.height))
    axes.set_axis_off()
    _draw_lines(axes, layout)
    _draw_inputs(axes, layout)
    for index, block in enumerate(cell.blocks):
        for (_, operation), centre in zip(block.sides, layout.operations[index], strict=True):
            _draw_operation(axes, OPERATION_STYLES[operation], centre)
        _draw_sum(axes, layout.adds[index], CELL_INPUTS + index)
    _draw_output(axes, layout)
    return figure


def _draw_lines(axes: Axes, layout: Layout) -> None:
    for source in range(CELL_INPUTS + len(layout.adds)):
        edges = [edge for edge in layout.edges if edge.source == source]
        paths, tips = [_edge_path(edge) for edge in edges], [edge.end for edge in edges]
        if source >= CELL_INPUTS:
            x, y = layout.adds[source - CELL_INPUTS]
            tips.append((x, layout.bar[1] - BAR_HEIGHT / 2))
            paths.append(Path([(x, y + ADD_RADIUS), tips[-1]]))
        colour = INPUT_COLOURS[source] if source < CELL_INPUTS else INK
        _lines(axes, paths, colour)
        _arrows(axes, tips, colour)
    for (x, y), pair in zip(layout.adds, layout.operations, strict=True):
        joins = [[(side, bottom + BOX[1] / 2), (side, y), (x, y)] for side, bottom in pair]
        _lines(axes, [Path(join, [Path.MOVETO, Path.CURVE3, Path.CURVE3]) for join in joins], INK)


def _edge_path(edge: Edge) -> Path:
    (x0, y0), (x1, y1) = edge.start, edge.bend
    middle = (y0 + y1) / 2
    points = [edge.start, (x0, middle), (x1, middle), edge.bend, edge.end]
    return Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO])


def _draw_inputs(axes: Axes, layout: Layout) -> None:
    used = {edge.source for edge in layout.edges}
    for index, centre in enumerate(layout.inputs):
        _box(axes, centre, INPUT_BOX, SURFACE, INPUT_COLOURS[index], dashed=index not in used)
        _text(axes, centre, _INPUT_NAMES[index], 9.5, INK)


def _draw_operation(axes: Axes, style: OperationStyle, centre: Point) -> None:
    _box(axes, centre, BOX, style.fill, style.colour)
    # Two texts, not one of two lines: a viewer with another font still centres each.
    lines = [line for line in (style.name, style.size) if line]
    x, y = centre
    for number, line in enumerate(lines):
        _text(axes, (x, y + 0.155 * ((len(lines) - 1) / 2 - number)), line, 9, BOX_INK)


def _draw_sum(axes: Axes, centre: Point, number: int) -> None:
    axes.add_patch(
        Circle(centre, ADD_RADIUS, facecolor=SURFACE, edgecolor=INK, linewidth=1.1, zorder=_ON_TOP)
    )
    (x, y), arm = centre, 0.055
    for line in (((x - arm, x + arm), (y, y)), ((x, x), (y - arm, y + arm))):
        axes.plot(*line, color=INK, linewidth=1.2, zorder=_ON_TOP)
    _text(axes, (x, y - ADD_RADIUS - 0.075), str(number), 7, MUTED)


def _draw_output(axes: Axes, layout: Layout) -> None:
    x, y = layout.bar
    tip = (layout.output[0], layout.output[1] - INPUT_BOX[1] / 2)
    _lines(axes, [Path([(x, y + BAR_HEIGHT / 2), tip])], INK)
    _arrows(axes, [tip], INK)
    _box(axes, layout.bar, (layout.bar_width, BAR_HEIGHT), RULE, RULE)
    _text(axes, layout.bar, "concatenate", 8.5, INK)
    _box(axes, layout.output, INPUT_BOX, SURFACE, INK)
    _text(axes, layout.output, "H[c]", 9.5, INK)


def _text(axes: Axes, centre: Point, text: str, size: float, colour: str) -> None:
    axes.text(*centre, text, ha="center", va="center_baseline", fontsize=size, color=colour, zorder=_ON_TOP)


def _box(axes: Axes, centre: Point, size: Point, fill: str, outline: str, dashed: bool = False) -> None:
    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    box = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.07", zorder=_ON_TOP)
    box.set(facecolor=fill, edgecolor=outline, linewidth=1.1, linestyle=(0, (3, 2)) if dashed else "solid")
    axes.add_patch(box)


def _lines(axes: Axes, paths: Sequence[Path], colour: str) -> None:
    """Lines of one source on halos, so that they visibly pass over the lines drawn before, not each other."""
    for width, shade in ((4.0, SURFACE), (1.2, colour)):
        for path in paths:
            axes.add_patch(PathPatch(path, fill=False, edgecolor=shade, linewidth=width, capstyle="butt"))


def _arrows(axes: Axes, tips: Sequence[Point], colour: str) -> None:
    width, height = _ARROW
    for x, y in tips:
        corners = [(x, y), (x - width / 2, y - height), (x + width / 2, y - height)]
        axes.add_patch(Polygon(corners, facecolor=colour, linewidth=0))
