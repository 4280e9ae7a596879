"""What the charts share: sizes, the range of an accuracy axis, children plotted on it, tick labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from pnas_fast.protocols import Trial
from pnas_fast.report.dots import plot_dots
from pnas_fast.report.palette import level_colour
from pnas_fast.report.view import Group, RunView

WIDE = 9.6
"""Inches: the width of a figure that takes the page's whole width."""

NARROW = 3.75
"""Inches: the width of a telephone's."""

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


def limit_accuracy(axes: Axes, view: RunView) -> None:
    """Make the y axis one of accuracies in percent, without those far below others of their group."""
    groups = [[trial.accuracy for trial in group.done] for group in view.groups]
    lowest = min(typical_range(accuracies)[0] for accuracies in groups if accuracies)
    axes.set_ylim(*padded(lowest, max(trial.accuracy for trial in view.done)))
    axes.set_ylabel("validation accuracy, %")
    percent_ticks(axes.yaxis)


def plot_group(
    axes: Axes, group: Group, trials: Sequence[Trial], x: Sequence[float], marker: str,
    colour: str | None = None,
) -> None:  # fmt: skip
    """Plot children of one group at ``x`` and their accuracy; those below the axis as triangles on its edge.

    The y axis must have its limits already. They have the group's colour, or another one.
    """
    low = axes.get_ylim()[0]
    style: dict[str, Any] = {
        "color": colour or level_colour(group.number),
        "alpha": 0.85,
        "markeredgewidth": 0,
    }
    style |= {"markersize": 4.4 if len(trials) <= _MANY else 3.0}
    shown = [(trial, at) for trial, at in zip(trials, x, strict=True) if trial.accuracy >= low]
    below = [(trial, at) for trial, at in zip(trials, x, strict=True) if trial.accuracy < low]
    inside = [trial for trial, _ in shown]
    heights = [trial.accuracy for trial in inside]
    plot_dots(axes, inside, [at for _, at in shown], heights, marker, **style)
    edge = [0.014] * len(below)
    style |= {"transform": axes.get_xaxis_transform()}
    plot_dots(axes, [trial for trial, _ in below], [at for _, at in below], edge, "v", **style)


_MANY = 500


def name_group(axes: Axes, group: Group, label: str, marker: str) -> None:
    """Give a group its line in the legend."""
    style: dict[str, Any] = {"color": level_colour(group.number), "markersize": 4.4, "markeredgewidth": 0}
    axes.plot([], [], marker=marker, linestyle="none", label=label, **style)


def percent_ticks(axis: Axis) -> None:
    """Write an axis of fractions in percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}")


def magnitude_ticks(axis: Axis, largest: float) -> None:
    """Write an axis of counts in thousands (k) or millions (M), all ticks in the same unit."""
    size, unit = (1e6, " M") if largest >= 1e6 else (1e3, " k") if largest >= 1e4 else (1, "")
    axis.set_major_formatter(lambda value, _: f"{value / size:.6g}{unit}")
