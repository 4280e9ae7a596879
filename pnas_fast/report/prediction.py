"""Predicted against measured accuracy, level by level, before and after the surrogate saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE, padded, percent_ticks, typical_range
from pnas_fast.report.dots import plot_dots
from pnas_fast.report.levels import LevelView, levels_of
from pnas_fast.report.palette import MUTED, level_colour
from pnas_fast.report.text import correlation, number
from pnas_fast.report.view import Group, RunView

Pairs = list[tuple[Trial, float]]
"""Some children, each with its predicted accuracy."""

# Inches. Panels are squares of one size, so their places are known without a layout engine.
_LARGEST_PANEL = 2.6
_LEFT, _RIGHT, _BOTTOM = 0.75, 0.15, 0.5
_GAP, _HEADING, _TICKS = 0.5, 0.4, 0.3
_MOMENTS = ("before training", "after fitting")


def predicted_levels(view: RunView) -> list[LevelView]:
    """Levels with a prediction, before or after, for a child that has an accuracy."""
    return [level for level in levels_of(view) if any(_pairs(level))]


def draw_predictions(view: RunView, narrow: bool = False) -> Figure:
    """One column a level: before it was trained (above; the first level has none) and after fitting.

    The two panels of a level share their limits, and children far outside are open circles on the edge. The
    diagonal is a perfect prediction; ρ is Spearman's rank correlation as the search recorded it. A
    ``narrow`` figure has one row a level instead. Scores, which are no accuracies, have an axis of their own
    and no diagonal.
    """
    scores = predicts_scores(view)
    levels = predicted_levels(view)
    pairs_of = [_pairs(level) for level in levels]
    moments = [moment for moment in (0, 1) if any(pairs[moment] for pairs in pairs_of)]
    rows, columns = (len(levels), len(moments)) if narrow else (len(moments), len(levels))
    figure, grid = _panels(rows, columns, NARROW if narrow else WIDE, scores)
    for level, pairs, line in zip(levels, pairs_of, grid if narrow else grid.T, strict=True):
        points = [(trial.accuracy, value) for moment in moments for trial, value in pairs[moment]]
        limits = _limits(points, scores)
        for axes, moment in zip(line, moments, strict=True):
            if pairs[moment]:
                _draw_panel(axes, pairs[moment], limits, level.group)
                rho = (level.rho_before, level.rho_after)[moment]
                grade = "ρ undefined" if rho is None else f"ρ = {correlation(rho)}"
                axes.set_title(f"{level.group.label}, {_MOMENTS[moment]}\n{grade}", fontsize=8.5)
            else:
                _draw_absence(axes)
    return figure


def predicts_scores(view: RunView) -> bool:
    """Whether the surrogate learned from losses, so that its predictions are scores instead of accuracies."""
    return view.record.config.get("learn") == "loss"


def _panels(rows: int, columns: int, width: float, scores: bool) -> tuple[Figure, npt.NDArray[np.object_]]:
    side = min(_LARGEST_PANEL, (width - _LEFT - _RIGHT + _GAP) / columns - _GAP)
    width = _LEFT + columns * (side + _GAP) - _GAP + _RIGHT
    height = _BOTTOM + rows * (side + _HEADING) + (rows - 1) * _TICKS
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=_BOTTOM / height,
        top=1 - _HEADING / height,
        wspace=_GAP / side,
        hspace=(_HEADING + _TICKS) / side,
    )
    label: dict[str, Any] = {"fontsize": 9, "color": MUTED, "va": "center", "ha": "center"}
    middle = (_LEFT / width + 1 - _RIGHT / width) / 2, (_BOTTOM / height + 1 - _HEADING / height) / 2
    figure.text(middle[0], 0.12 / height, "measured accuracy, %", **label)
    predicted = "predicted score" if scores else "predicted accuracy, %"
    figure.text(0.12 / width, middle[1], predicted, rotation="vertical", **label)
    return figure, grid


def _pairs(level: LevelView) -> tuple[Pairs, Pairs]:
    """A level's finished children with their predictions before its training, and after."""
    before = [(trial, number(trial.proposal.note.get("predicted"))) for trial in level.group.done]
    after = [(trial, level.predicted_after(trial)) for trial in level.group.done]
    return _known(before), _known(after)


def _known(pairs: Sequence[tuple[Trial, float | None]]) -> Pairs:
    return [(trial, value) for trial, value in pairs if value is not None]


@dataclass(frozen=True, slots=True)
class _Limits:
    """Of measured accuracies and of predictions; the same where both are accuracies, else ``scores``."""

    x: tuple[float, float]
    y: tuple[float, float]
    scores: bool


def _limits(pairs: Sequence[tuple[float, float]], scores: bool) -> _Limits:
    measured, predicted = zip(*pairs, strict=True)
    ranges = typical_range(measured), typical_range(predicted)
    if scores:
        return _Limits(padded(*ranges[0]), padded(*ranges[1]), scores)
    both = padded(min(low for low, _ in ranges), max(high for _, high in ranges))
    return _Limits(both, both, scores)


def _draw_panel(axes: Axes, pairs: Pairs, limits: _Limits, group: Group) -> None:
    axes.set(xlim=limits.x, ylim=limits.y)
    axes.locator_params(nbins=4)
    percent_ticks(axes.xaxis)
    if not limits.scores:
        axes.set_aspect("equal")
        percent_ticks(axes.yaxis)
        axes.plot(limits.x, limits.y, color=MUTED, linewidth=0.9, dashes=(4, 3))
    points = np.array([(trial.accuracy, value) for trial, value in pairs])
    shown = points.clip(*np.transpose([limits.x, limits.y]))
    outside = (shown != points).any(axis=1)
    looks: tuple[dict[str, Any], ...] = (
        {"markersize": 3.9, "alpha": 0.75, "markeredgewidth": 0},
        {"markersize": 4.2, "markerfacecolor": "none", "clip_on": False},
    )
    for is_outside, look in enumerate(looks):
        chosen = np.flatnonzero(outside == is_outside)
        x, y = shown[chosen].T
        plot_dots(
            axes, [pairs[index][0] for index in chosen], x, y, "o", color=level_colour(group.number), **look
        )


def _draw_absence(axes: Axes) -> None:
    axes.set_axis_off()
    where: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, "no surrogate yet", fontsize=8.5, color=MUTED, **where)
