"""Learning curves of the children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE
from pnas_fast.report.palette import INK, MUTED, level_colour
from pnas_fast.report.text import LARGEST, percent
from pnas_fast.report.view import RunView

LINES = 200
"""At most so many children are drawn beside the best ones, spread evenly over the search."""

_NAMED = 3
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
_FEWEST = 2  # a curve of one epoch is a point


def curve_names(view: RunView) -> list[str]:
    """What curves some child has that trained more than an epoch, ``loss`` first."""
    names = {
        name
        for trial in view.trials
        for name, values in trial.measurement.curves.items()
        if len(values) >= _FEWEST
    }
    return sorted(names, key=lambda name: (name != "loss", name))


def draw_curves(view: RunView, narrow: bool = False) -> Figure:
    """One panel a curve: bold the best children's, faint the others'; failed ones end where they failed."""
    names = curve_names(view)[:3]
    size = (NARROW, 0.4 + 2.6 * len(names)) if narrow else (WIDE, 3.4)
    figure = Figure(figsize=size, layout="constrained")
    shape = (len(names), 1) if narrow else (1, len(names))
    for axes, name in zip(figure.subplots(*shape, squeeze=False).flat, names, strict=True):
        _draw_panel(axes, view, name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2 if narrow else 4, columnspacing=1.6)
    return figure


def _draw_panel(axes: Axes, view: RunView, name: str) -> None:
    named = view.ranked[:_NAMED]
    best = {trial.number for trial in named}
    others = [trial for trial in view.trials if trial.number not in best]
    step = -(-len(others) // LINES) or 1
    lines = [points for trial in others[::step] if len(points := _points(trial, name))]
    axes.add_collection(
        LineCollection(lines, colors=MUTED, linewidths=0.6, alpha=0.35, label="other children")
    )
    for rank, trial in enumerate(named):
        points = _points(trial, name)
        label = f"rank {rank + 1}, {percent(trial.accuracy, 2)}"
        style: dict[str, Any] = {"color": INK if rank == 0 else level_colour(rank), "linewidth": 1.5}
        axes.plot(*points.T, linestyle=_DASHES[rank], label=label, **style)
    axes.autoscale_view()
    # A user's evaluator names curves as it likes; dollar signs are no formulas.
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss" if name == "loss" else name.replace("_", " "), parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _points(trial: Trial, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(epoch, value) of a child's curve, float64 (epochs, 2), without values that are no known numbers."""
    values: Sequence[float] = trial.measurement.curves.get(name, ())
    points = np.array(list(enumerate(values, start=1)), dtype=np.float64).reshape(-1, 2)
    return points[np.abs(points[:, 1]) <= LARGEST]
