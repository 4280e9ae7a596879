"""Which operations good cells are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.report.axes import WIDE
from pnas_fast.report.palette import INK, MUTED, OPERATION_STYLES
from pnas_fast.report.record import RunRecord
from pnas_fast.space import OPERATIONS, Cell

_LABELS, _LARGEST_PANEL = 1.3, 3.0  # inches
_FEWEST = 8  # a quarter of fewer children says nothing


def compared_levels(record: RunRecord) -> list[int]:
    """Levels with enough finished children to compare their best quarter with all of them."""
    return [level for level in record.level_numbers if len(record.done_at(level)) >= _FEWEST]


def operation_shares(cells: Iterable[str]) -> npt.NDArray[np.float64]:
    """The share of each of `OPERATIONS` among all operations of some cells; float64 (8,), sum 1."""
    found = Counter(
        operation for cell in cells for block in Cell.parse(cell).blocks for _, operation in block.sides
    )
    return np.array([found[name] / found.total() for name in OPERATIONS], dtype=np.float64)


def best_quarter(record: RunRecord, level: int) -> list[str]:
    """The cells of a level's most accurate quarter, rounded up, the earlier of equals first."""
    ranked = [item.trial.cell for item in record.ranked if item.trial.level == level]
    return ranked[: -(-len(ranked) // 4)]


def draw_usage(record: RunRecord) -> Figure:
    """One panel a level: bars for the best quarter's shares, a tick for the share among all children."""
    levels = compared_levels(record)
    figure = Figure(
        figsize=(_LABELS + min(_LARGEST_PANEL * len(levels), WIDE - _LABELS), 2.8), layout="constrained"
    )
    panels: Sequence[Axes] = figure.subplots(1, len(levels), sharex=True, sharey=True, squeeze=False)[0]
    rows = np.arange(len(OPERATIONS))
    for axes, level in zip(panels, levels, strict=True):
        best = operation_shares(best_quarter(record, level))
        everyone = operation_shares(item.trial.cell for item in record.done_at(level))
        colours = [OPERATION_STYLES[name].colour for name in OPERATIONS]
        axes.barh(rows, best, height=0.62, color=colours)
        axes.plot(everyone, rows, "|", color=INK, markersize=11, markeredgewidth=1.6)
        axes.set_title(f"level {level}")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(rows, [OPERATION_STYLES[name].label for name in OPERATIONS], color=INK)
    panels[0].invert_yaxis()
    figure.supxlabel("share of operations", fontsize=9, color=MUTED)
    return figure
