"""What the charts share: the range of an accuracy axis, how children are plotted on it, tick labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from pnas_fast.report.palette import level_colour
from pnas_fast.report.record import FinishedTrial, RunRecord

WIDE = 9.6
"""Inches: the width of a figure that takes the page's whole width."""

_FENCE = 2.0  # interquartile ranges beyond a quartile, past which a value does not stretch an axis


def typical_range(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest value that are not far out (Tukey's fences, at 2 interquartile ranges)."""
    lower, upper = np.quantile(values, (0.25, 0.75))
    reach = _FENCE * (upper - lower)
    inside = [value for value in values if lower - reach <= value <= upper + reach]
    return min(inside), max(inside)


def padded(low: float, high: float) -> tuple[float, float]:
    """Axis limits a little outside of a range of fractions, also where it is a single value."""
    room = max(0.06 * (high - low), 0.002)
    return low - room, high + room


def limit_accuracy(axes: Axes, record: RunRecord) -> None:
    """Make the y axis one of accuracies in percent, without those far below others of their level."""
    levels = [[item.accuracy for item in record.done_at(level)] for level in record.level_numbers]
    lowest = min(typical_range(accuracies)[0] for accuracies in levels if accuracies)
    axes.set_ylim(*padded(lowest, record.ranked[0].accuracy))
    axes.set_ylabel("validation accuracy, %")
    percent_ticks(axes.yaxis)


def plot_level(
    axes: Axes, items: Sequence[FinishedTrial], x: Sequence[float], label: str, marker: str
) -> None:
    """Plot children of one level at ``x`` and their accuracy; those below the axis as triangles on its edge.

    The y axis must have its limits already.
    """
    low = axes.get_ylim()[0]
    colour = level_colour(items[0].trial.level)
    style: dict[str, Any] = {"color": colour, "alpha": 0.85, "linestyle": "none"}
    style |= {"markersize": 4.4, "markeredgewidth": 0}
    accuracies = np.array([item.accuracy for item in items])
    below = accuracies < low
    places = np.asarray(x)
    axes.plot(places[~below], accuracies[~below], marker=marker, label=label, **style)
    if below.any():
        edge = axes.get_xaxis_transform()
        axes.plot(places[below], np.full(below.sum(), 0.014), marker="v", transform=edge, **style)


def percent_ticks(axis: Axis) -> None:
    """Write an axis of fractions in percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}")


def magnitude_ticks(axis: Axis, largest: int) -> None:
    """Write an axis of counts in thousands (k) or millions (M), all ticks in the same unit."""
    size, unit = (1e6, " M") if largest >= 1e6 else (1e3, " k") if largest >= 1e4 else (1, "")
    axis.set_major_formatter(lambda value, _: f"{value / size:.6g}{unit}")
