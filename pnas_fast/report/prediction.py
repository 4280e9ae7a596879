"""Predicted against measured accuracy, level by level, before and after the surrogate saw them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.report.axes import WIDE, padded, percent_ticks, typical_range
from pnas_fast.report.palette import MUTED, level_colour
from pnas_fast.report.record import RunRecord
from pnas_fast.report.text import correlation

Pairs = list[tuple[float, float]]
"""(measured, predicted) of some children."""

# Inches. Panels are squares of one size, so their places are known without a layout engine.
_LARGEST_PANEL = 2.6
_LEFT, _RIGHT, _BOTTOM = 0.75, 0.15, 0.5
_GAP, _HEADING, _TICKS = 0.5, 0.4, 0.3
_MOMENTS = ("before training", "after fitting")


def predicted_levels(record: RunRecord) -> list[int]:
    """Levels with a prediction, before or after, for a child that has an accuracy."""
    return [level for level in record.level_numbers if any(_pairs(record, level))]


def draw_predictions(record: RunRecord) -> Figure:
    """One column a level: before it was trained (above; the first level has none) and after fitting.

    The two panels of a column share their limits, and children far outside are open circles on the
    edge. The diagonal is a perfect prediction; ρ is Spearman's rank correlation as the search
    recorded it.
    """
    levels = predicted_levels(record)
    columns = [_pairs(record, level) for level in levels]
    rows = [row for row in (0, 1) if any(pairs[row] for pairs in columns)]
    side = min(_LARGEST_PANEL, (WIDE - _LEFT - _RIGHT + _GAP) / len(levels) - _GAP)
    width = _LEFT + len(levels) * (side + _GAP) - _GAP + _RIGHT
    height = _BOTTOM + len(rows) * (side + _HEADING) + (len(rows) - 1) * _TICKS
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(len(rows), len(levels), squeeze=False)
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=_BOTTOM / height,
        top=1 - _HEADING / height,
        wspace=_GAP / side,
        hspace=(_HEADING + _TICKS) / side,
    )
    for place, (level, pairs) in enumerate(zip(levels, columns, strict=True)):
        limits = _limits(pairs[0] + pairs[1])
        for axes, row in zip(grid[:, place], rows, strict=True):
            if pairs[row]:
                _draw_panel(axes, pairs[row], limits, level)
                rho = _rhos(record, level)[row]
                grade = "ρ undefined" if rho is None else f"ρ = {correlation(rho)}"
                axes.set_title(f"level {level}, {_MOMENTS[row]}\n{grade}", fontsize=8.5)
            else:
                _draw_absence(axes)
    label: dict[str, Any] = {"fontsize": 9, "color": MUTED, "va": "center", "ha": "center"}
    middle = (_LEFT / width + 1 - _RIGHT / width) / 2, (_BOTTOM / height + 1 - _HEADING / height) / 2
    figure.text(middle[0], 0.12 / height, "measured accuracy, %", **label)
    figure.text(0.12 / width, middle[1], "predicted accuracy, %", rotation="vertical", **label)
    return figure


def _pairs(record: RunRecord, level: int) -> tuple[Pairs, Pairs]:
    """A level's finished children with their predictions before its training, and after."""
    known = [
        (item.accuracy, record.predictions[item.trial.cell])
        for item in record.done_at(level)
        if item.trial.cell in record.predictions
    ]
    before = [(accuracy, pair.before) for accuracy, pair in known]
    after = [(accuracy, pair.after) for accuracy, pair in known]
    return _finite(before), _finite(after)


def _finite(pairs: Sequence[tuple[float, float | None]]) -> Pairs:
    return [(measured, value) for measured, value in pairs if value is not None and isfinite(value)]


def _rhos(record: RunRecord, number: int) -> tuple[float | None, float | None]:
    level = record.level(number)
    return (None, None) if level is None else (level.rho_before, level.rho_after)


def _limits(pairs: Pairs) -> tuple[float, float]:
    measured, predicted = zip(*pairs, strict=True)
    ranges = typical_range(measured), typical_range(predicted)
    return padded(min(low for low, _ in ranges), max(high for _, high in ranges))


def _draw_panel(axes: Axes, pairs: Pairs, limits: tuple[float, float], level: int) -> None:
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.locator_params(nbins=4)
    percent_ticks(axes.xaxis)
    percent_ticks(axes.yaxis)
    axes.plot(limits, limits, color=MUTED, linewidth=0.9, dashes=(4, 3))
    points = np.array(pairs)
    shown = points.clip(*limits)
    outside = (shown != points).any(axis=1)
    colour = level_colour(level)
    axes.plot(*shown[~outside].T, "o", color=colour, markersize=3.9, alpha=0.75, markeredgewidth=0)
    axes.plot(*shown[outside].T, "o", color=colour, markersize=4.2, markerfacecolor="none", clip_on=False)


def _draw_absence(axes: Axes) -> None:
    axes.set_axis_off()
    where: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, "no surrogate yet", fontsize=8.5, color=MUTED, **where)
