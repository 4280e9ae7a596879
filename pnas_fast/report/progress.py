"""The authors' own plot: every child's accuracy in the order in which the search trained them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pnas_fast.report.axes import WIDE, limit_accuracy, plot_level
from pnas_fast.report.palette import FAILED, INK, SURFACE, level_colour
from pnas_fast.report.record import FinishedTrial, RunRecord
from pnas_fast.report.text import percent


def draw_progress(record: RunRecord) -> Figure:
    """Accuracy by `Trial.position`, coloured by level, with the best so far and each level's mean.

    Failed children are crosses on the axis. Children far below the others, which would press the rest
    into a line, are triangles at the lower edge.
    """
    figure = Figure(figsize=(WIDE, 4.2), layout="constrained")
    axes = figure.add_subplot()
    limit_accuracy(axes, record)
    axes.set(xlabel="children, in training order", xlim=(-1, record.trials[-1].position + 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)
    for level in record.level_numbers:
        items = record.done_at(level)
        if items:
            _draw_level(axes, items)
    best = np.maximum.accumulate([item.accuracy for item in record.done])
    positions = [item.trial.position for item in record.done]
    # To the right edge, so that it is a line even after a single child.
    positions.append(record.trials[-1].position + 1)
    axes.step(positions, [*best, best[-1]], where="post", color=INK, linewidth=1.2, label="best so far")
    _draw_failed(axes, [trial.position for trial in record.failed])
    figure.legend(loc="outside upper left", ncols=4, handletextpad=0.4, columnspacing=1.6)
    return figure


def _draw_level(axes: Axes, items: Sequence[FinishedTrial]) -> None:
    level, mean = items[0].trial.level, fmean(item.accuracy for item in items)
    positions = [item.trial.position for item in items]
    plot_level(axes, items, positions, f"level {level}, mean {percent(mean)}", "o")
    ends = positions[0] - 0.5, positions[-1] + 0.5
    halo = [withStroke(linewidth=3.5, foreground=SURFACE)]
    axes.plot(ends, [mean, mean], color=level_colour(level), linewidth=1.5, path_effects=halo)


def _draw_failed(axes: Axes, positions: Sequence[int]) -> None:
    if positions:
        axes.plot(
            positions, [0.0] * len(positions), "x", label="failed",
            color=FAILED, markersize=6, markeredgewidth=1.6,
            transform=axes.get_xaxis_transform(), clip_on=False, zorder=5,
        )  # fmt: skip
