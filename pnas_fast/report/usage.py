"""Which operations good cells are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE
from pnas_fast.report.palette import INK, MUTED, OPERATION_STYLES
from pnas_fast.report.view import Group, RunView
from pnas_fast.space import OPERATIONS, Cell

_LABELS, _LARGEST_PANEL, _HEIGHT = 1.3, 3.0, 2.8  # inches
_FEWEST = 8  # a quarter of fewer children says nothing


def compared_groups(view: RunView) -> list[Group]:
    """Groups with enough finished children to compare their best quarter with all of them."""
    return [group for group in view.groups if len(group.done) >= _FEWEST]


def operation_shares(cells: Iterable[Cell]) -> npt.NDArray[np.float64]:
    """The share of each of `OPERATIONS` among all operations of some cells; float64 (8,), sum 1."""
    found = Counter(operation for cell in cells for block in cell.blocks for _, operation in block.sides)
    return np.array([found[name] / found.total() for name in OPERATIONS], dtype=np.float64)


def best_quarter(group: Group) -> list[Trial]:
    """A group's best quarter, rounded up."""
    ranked = sorted(group.done, key=lambda trial: trial.order, reverse=True)
    return ranked[: -(-len(ranked) // 4)]


def draw_usage(view: RunView, narrow: bool = False) -> Figure:
    """One panel a group: bars for the best quarter's shares, a tick for the share among all children."""
    groups = compared_groups(view)
    columns = min(2, len(groups)) if narrow else len(groups)
    rows = -(-len(groups) // columns)
    width = NARROW if narrow else _LABELS + min(_LARGEST_PANEL * columns, WIDE - _LABELS)
    figure = Figure(figsize=(width, _HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, group in zip(panels.flat, groups, strict=False):
        _draw_panel(axes, group)
    for axes in panels.flat[len(groups) :]:
        axes.set_visible(False)
    panels[0, 0].set_yticks(np.arange(len(OPERATIONS)), [OPERATION_STYLES[name].label for name in OPERATIONS])
    panels[0, 0].invert_yaxis()
    for axes in panels[:, 0]:
        axes.tick_params(axis="y", labelcolor=INK)
    figure.supxlabel("share of operations", fontsize=9, color=MUTED)
    return figure


def _draw_panel(axes: Axes, group: Group) -> None:
    places = np.arange(len(OPERATIONS))
    best = operation_shares(trial.cell for trial in best_quarter(group))
    everyone = operation_shares(trial.cell for trial in group.done)
    axes.barh(places, best, height=0.62, color=[OPERATION_STYLES[name].colour for name in OPERATIONS])
    axes.plot(everyone, places, "|", color=INK, markersize=11, markeredgewidth=1.6)
    axes.set_title(group.label)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.locator_params(axis="x", nbins=4)
