"""Drawings of cells: nothing overlaps, every edge is there, every operation has its look."""

import random
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch

from cells import PNASNET5, cells, random_cells
from pnas_fast.report.drawing import draw_cell
from pnas_fast.report.layout import BOX, block_depths, lay_out
from pnas_fast.report.palette import OPERATION_STYLES
from pnas_fast.space import OPERATIONS, Cell


def boxes_of(figure):
    """Window extents of all boxes and circles, and of all texts, in pixels."""
    (axes,) = figure.axes
    figure.canvas.draw()
    shapes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch | Circle)]
    return [shape.get_window_extent() for shape in shapes], [text.get_window_extent() for text in axes.texts]


def overlap(one, other):
    return min(one.x1, other.x1) > max(one.x0, other.x0) and min(one.y1, other.y1) > max(one.y0, other.y0)


CHAIN = "0:identity+1:identity," + ",".join(f"{2 + index}:sep3x3+{1 + index}:sep3x3" for index in range(4))
DRAWN = [
    PNASNET5,
    CHAIN,
    *(cell for size in range(1, 6) for cell in random_cells(size, 2, random.Random(size))),
]


@pytest.mark.parametrize("cell", DRAWN)
def test_nothing_in_a_drawing_overlaps(cell):
    cell = Cell.parse(cell)
    figure = draw_cell(cell)
    boxes, texts = boxes_of(figure)
    # 2 operations and a sum for every block; two inputs, the concatenation and the output.
    assert len(boxes) == 3 * len(cell) + 4
    for group in (boxes, texts):
        assert not any(overlap(one, other) for one, other in combinations(group, 2))
        page = figure.bbox
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in group)
        assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in group)
    numbers = {str(2 + index) for index in range(len(cell))}
    for text in figure.axes[0].texts:
        extent = text.get_window_extent()
        inside = [box for box in boxes if overlap(extent, box)]
        if text.get_text() in numbers:
            assert inside == []
        else:
            (box,) = inside
            assert box.x0 <= extent.x0 <= extent.x1 <= box.x1
            assert box.y0 <= extent.y0 <= extent.y1 <= box.y1


@pytest.mark.parametrize("cell", DRAWN)
def test_no_line_of_a_drawing_passes_through_a_box_or_a_number(cell):
    figure = draw_cell(Cell.parse(cell))
    (axes,) = figure.axes
    boxes, _ = boxes_of(figure)
    numbers = [text.get_window_extent() for text in axes.texts if text.get_text().isdigit()]
    # Lines touch the boxes they join: only what goes deeper than this counts.
    rectangles = [box.padded(-2.0) for box in boxes if box.width > 40] + numbers
    for patch in axes.patches:
        if isinstance(patch, PathPatch):
            path = patch.get_path().interpolated(1).transformed(patch.get_transform())
            (points,) = path.to_polygons(closed_only=False)
            ends = np.concatenate([np.linspace(a, b, 40) for a, b in pairwise(points)])
            for box in rectangles:
                assert not box.count_contains(ends)


@settings(max_examples=30, deadline=None)
@given(cells())
def test_layout_has_every_edge_and_blocks_stand_above_their_inputs(cell):
    layout = lay_out(cell)
    expected = [source for block in cell.blocks for source, _ in block.sides]
    assert [edge.source for edge in layout.edges] == expected
    ends = [(x, y - BOX[1] / 2) for pair in layout.operations for x, y in pair]
    assert [edge.end for edge in layout.edges] == ends
    assert len(set(ends)) == len(ends)
    assert all(edge.start[1] < edge.bend[1] < edge.end[1] for edge in layout.edges)


def test_depth_is_the_longest_chain_below():
    assert block_depths(Cell.parse(PNASNET5)) == (0, 0, 0, 1, 0)
    assert block_depths(Cell.parse(CHAIN)) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_drawn_with_its_name(operation):
    figure = draw_cell(Cell.parse(f"0:{operation}+1:{operation}"))
    texts = Counter(text.get_text() for text in figure.axes[0].texts)
    style = OPERATION_STYLES[operation]
    assert texts[style.name] == 2
    assert not style.size or texts[style.size] == 2
    assert {"H[c−2]", "H[c−1]", "concatenate", "H[c]"} <= set(texts)


def test_every_operation_has_a_look_of_its_own():
    assert set(OPERATION_STYLES) == set(OPERATIONS)
    styles = OPERATION_STYLES.values()
    for looks in (
        [style.label for style in styles],
        [style.fill for style in styles],
        [style.colour for style in styles],
    ):
        assert len(set(looks)) == len(OPERATIONS)


def test_unused_input_is_dashed():
    def input_outlines(cell):
        boxes = [
            patch
            for patch in draw_cell(Cell.parse(cell)).axes[0].patches
            if isinstance(patch, FancyBboxPatch)
        ]
        return [box.get_linestyle() for box in boxes[:2]]

    assert input_outlines("0:sep3x3+1:identity") == ["solid", "solid"]
    assert [style == "solid" for style in input_outlines("0:sep3x3+0:identity")] == [True, False]
