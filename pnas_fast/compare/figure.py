"""The talk's figure: how good the best M cells are against what was spent, every strategy in one panel."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.curves import MOST, Floats, at_costs, cost_grid
from pnas_fast.compare.statistics import standard_error
from pnas_fast.compare.target import first_reach
from pnas_fast.report.axes import NARROW, WIDE, magnitude_ticks, percent_ticks
from pnas_fast.report.palette import INK, MUTED, SURFACE, level_colour

X_LABELS = {
    "cells": "children trained",
    "images": "training images, all children",
    "seconds": "training time, s",
}

_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)))
_COLOURS = 5
_POINTS = 200
"""Of a line: more are not seen, and make a page large."""


def draw_comparison(comparison: Comparison, axis: str, remark: str, narrow: bool = False) -> Figure:
    """Three panels, M = 1, 5, 25: mean over runs and a band of one standard error, on one of `AXES`.

    The horizontal line is the mean of the reference at its end. The arrow leads from where the reference
    reaches it to where the first other strategy does, with the ratio of the two; to the longest budget, as
    more than that ratio, where none does.

    Args:
        comparison: of runs.
        axis: what is paid in.
        remark: what the spread holds, in a few words.
        narrow: for a telephone, one panel below the other.
    """
    shown = [most for most in MOST if _has_mean(comparison, axis, most)]
    size = (NARROW, 1.0 + 2.5 * len(shown)) if narrow else (WIDE, 3.9)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(*((len(shown), 1) if narrow else (1, len(shown))), squeeze=False).ravel()
    for axes, most in zip(panels, shown, strict=True):
        _draw_panel(axes, comparison, axis, most)
        if axes is panels[0] or narrow:
            axes.set_ylabel(f"{_short(comparison.measures[0].title)}, %")
        if axes is panels[-1] or not narrow:
            axes.set_xlabel(X_LABELS[axis])
    handles, labels = panels[0].get_legend_handles_labels()
    where: dict[str, Any] = {"loc": "outside upper left", "handletextpad": 0.5, "columnspacing": 1.6}
    figure.legend(handles, labels, ncols=2 if narrow else 6, **where)
    figure.supxlabel(remark, fontsize=7.5, color=MUTED, x=0.01, ha="left")
    return figure


def _short(title: str) -> str:
    return title.partition(" (")[0]


def _has_mean(comparison: Comparison, axis: str, most: int) -> bool:
    return any(np.isfinite(group.last(0, most)).any() for group in comparison.groups)


def _draw_panel(axes: Axes, comparison: Comparison, axis: str, most: int) -> None:
    means: list[tuple[Floats, Floats]] = []
    lows, highs = [], []
    for index, group in enumerate(comparison.groups):
        grid, curves = group.on_axis(axis, 0, most)
        mean, error = _draw_mean(axes, index, group.strategy, grid, curves)
        means.append((grid, mean))
        known = mean[np.isfinite(mean)]
        if len(known):
            # The first few cells are worse than all that matters: they would press the rest together.
            lows.append(float(np.quantile(known, 0.08)))
            highs.append(float(known.max() + np.nanmax(np.nan_to_num(error))))
    room = 0.08 * (max(highs) - min(lows)) + 1e-4
    axes.set_ylim(min(lows) - room, max(highs) + 1.6 * room)
    axes.set_xlim(0, max(float(grid[-1]) for grid, _ in means))
    axes.set_title(f"best {most} cells" if most > 1 else "best cell")
    percent_ticks(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    magnitude_ticks(axes.xaxis, max(float(grid[-1]) for grid, _ in means))
    _draw_target(axes, means)


def _draw_mean(axes: Axes, index: int, strategy: str, grid: Floats, curves: Floats) -> tuple[Floats, Floats]:
    """Draw the mean (k,) of curves (runs, k) and a band of its standard error (k,); returns both."""
    shown = np.unique(np.linspace(0, len(grid) - 1, _POINTS).round().astype(int))
    mean, error = curves.mean(axis=0), standard_error(curves)
    style: dict[str, Any] = {"color": level_colour(index % _COLOURS + 1), "linewidth": 1.5}
    dashes = _DASHES[index // _COLOURS % 3]
    axes.plot(grid[shown], mean[shown], linestyle=dashes, label=strategy, **style)
    if np.isfinite(error).any():
        low, high = (mean - error)[shown], (mean + error)[shown]
        axes.fill_between(grid[shown], low, high, color=style["color"], alpha=0.18, linewidth=0)
    return mean, error


def draw_hypervolumes(comparison: Comparison, remark: str, narrow: bool = False) -> Figure:
    """Hypervolume against children trained: mean over runs and a band of one standard error."""
    figure = Figure(figsize=(NARROW, 3.4) if narrow else (WIDE, 3.9), layout="constrained")
    axes = figure.add_subplot()
    for index, group in enumerate(comparison.groups):
        costs = [run.costs["cells"] for run in group.runs]
        grid = cost_grid(costs)
        curves = at_costs(grid, costs, comparison.hypervolumes[group.strategy])
        _draw_mean(axes, index, group.strategy, grid, curves)
    axes.set(xlabel=X_LABELS["cells"], ylabel="hypervolume of the front", xlim=(0, comparison.budget))
    figure.legend(loc="outside upper left", ncols=2 if narrow else 6, handletextpad=0.5, columnspacing=1.6)
    figure.supxlabel(remark, fontsize=7.5, color=MUTED, x=0.01, ha="left")
    return figure


def _draw_target(axes: Axes, means: list[tuple[Floats, Floats]]) -> None:
    """The reference's last mean as a line, and the way from there to the first rival that comes to it."""
    target = float(means[0][1][-1])
    if target != target:
        return
    axes.axhline(target, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
    costs = [float(first_reach(grid, mean[None], target)[0]) for grid, mean in means]
    own, rival = costs[0], min(costs[1:], default=inf)
    if len(costs) == 1 or not own or own == inf:
        return
    # Where nobody else comes there, all that is known is that the longest budget does not do.
    is_censored = rival == inf
    end = max(float(grid[-1]) for grid, _ in means[1:]) if is_censored else rival
    if end != own:
        style = "->" if is_censored else "<->"
        arrow = {"arrowstyle": style, "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (end, target), (own, target), arrowprops=arrow)
    axes.annotate(
        f"{'> ' if is_censored else ''}×{end / own:.2f}", ((end + own) / 2, target), (0, 4),
        textcoords="offset points", ha="center", fontsize=8, color=INK,
        path_effects=[withStroke(linewidth=2.5, foreground=SURFACE)],
    )  # fmt: skip
