"""The authors' own plot: every child's accuracy in the order in which the search trained them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE, limit_accuracy, name_group, plot_group
from pnas_fast.report.dots import plot_dots
from pnas_fast.report.palette import FAILED, INK, SURFACE, level_colour
from pnas_fast.report.text import percent
from pnas_fast.report.view import Group, RunView


def draw_progress(view: RunView, narrow: bool = False) -> Figure:
    """Accuracy by `Trial.number`, coloured by group, with the best so far and each level's mean.

    Failed children are crosses on the axis. Children far below the others, which would press the rest
    into a line, are triangles at the lower edge. The best child has its standard error, where it is known.
    """
    figure = Figure(figsize=(NARROW, 3.6) if narrow else (WIDE, 4.2), layout="constrained")
    axes = figure.add_subplot()
    limit_accuracy(axes, view)
    last = view.trials[-1].number
    axes.set(xlabel="children, in the search's order", xlim=(-1, last + 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 10, integer=True))
    axes.grid(axis="x", visible=False)
    for group in view.groups:
        if group.done:
            _draw_group(axes, group, mean=view.has_levels)
    best = [trial.accuracy for trial in accumulate(view.done, _better(view))]
    numbers = [trial.number for trial in view.done]
    # To the right edge, so that it is a line even after a single child.
    numbers.append(last + 1)
    axes.step(numbers, [*best, best[-1]], where="post", color=INK, linewidth=1.2, label="best so far")
    _draw_error(axes, view)
    _draw_failed(axes, view)
    figure.legend(loc="outside upper left", ncols=2 if narrow else 4, handletextpad=0.4, columnspacing=1.6)
    return figure


def _better(view: RunView) -> Callable[[Trial, Trial], Trial]:
    rank = view.record.aims.rank
    return lambda one, other: max((one, other), key=rank)


def _draw_group(axes: Axes, group: Group, mean: bool) -> None:
    average = fmean(trial.accuracy for trial in group.done)
    numbers = [trial.number for trial in group.done]
    name_group(axes, group, f"{group.label}, mean {percent(average)}", "o")
    plot_group(axes, group, group.done, numbers, "o")
    if mean:
        halo = [withStroke(linewidth=3.5, foreground=SURFACE)]
        style: dict[str, Any] = {"color": level_colour(group.number), "linewidth": 1.5}
        axes.plot((numbers[0] - 0.5, numbers[-1] + 0.5), [average] * 2, path_effects=halo, **style)


def _draw_error(axes: Axes, view: RunView) -> None:
    best = view.ranked[0]
    error = view.standard_error(best)
    if error:
        axes.errorbar(best.number, best.accuracy, error, color=INK, elinewidth=1.0, capsize=2.5, capthick=1.0)
        low, high = axes.get_ylim()
        axes.set_ylim(low, max(high, best.accuracy + 1.2 * error))


def _draw_failed(axes: Axes, view: RunView) -> None:
    numbers = [trial.number for trial in view.failed]
    edge = axes.get_xaxis_transform()
    plot_dots(
        axes, view.failed, numbers, [0.0] * len(numbers), "x", label="failed",
        color=FAILED, markersize=6, markeredgewidth=1.6, transform=edge, clip_on=False, zorder=5,
    )  # fmt: skip
