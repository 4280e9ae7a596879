"""The figure of a training: loss and accuracy, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.files import write_text
from pnas_fast.report.axes import WIDE, padded, percent_ticks, typical_range
from pnas_fast.report.palette import INK, level_colour
from pnas_fast.report.svg import report_style, to_svg
from pnas_fast.report.text import percent
from pnas_fast.runs.disk import writing
from pnas_fast.train.history import Epoch

CURVES = "training.svg"


def write_curves(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Draw a run's history into its folder; nothing without an epoch."""
    if not epochs:
        return
    best = max(epoch.judged for epoch in epochs)
    title = f"Training loss and validation accuracy after {len(epochs)} epochs, at best {percent(best, 2)}"
    with report_style():
        figure = draw_curves(epochs)
        with writing(folder / CURVES):
            write_text(folder / CURVES, to_svg(figure, "training", title).file_text)


def draw_curves(epochs: Sequence[Epoch]) -> Figure:
    """Loss on the left; validation accuracy, that of averaged weights and the best on the right."""
    figure = Figure(figsize=(WIDE, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [epoch.epoch for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs], color=INK, **_style(epochs))
    left.set(title="Training loss", xlabel="epoch")
    _draw_accuracies(right, epochs)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_accuracies(axes: Axes, epochs: Sequence[Epoch]) -> None:
    numbers = [epoch.epoch for epoch in epochs]
    accuracies = [epoch.accuracy for epoch in epochs]
    axes.plot(numbers, accuracies, color=level_colour(1), label="weights", **_style(epochs))
    averaged = [epoch for epoch in epochs if epoch.average_accuracy is not None]
    if averaged:
        axes.plot(
            [epoch.epoch for epoch in averaged],
            [epoch.judged for epoch in averaged],
            color=level_colour(2),
            label="averaged weights",
            **_style(epochs),
        )
    best = max(epochs, key=lambda epoch: epoch.judged)
    axes.plot(best.epoch, best.judged, "o", color=INK, label=f"best, {percent(best.judged, 2)}")
    low, high = typical_range(accuracies)
    axes.set_ylim(*padded(low, max(high, best.judged)))
    axes.set(title="Validation accuracy, %", xlabel="epoch")
    percent_ticks(axes.yaxis)
    axes.legend(loc="lower right")


def _style(epochs: Sequence[Epoch]) -> dict[str, Any]:
    # A single epoch makes no line.
    return {"linewidth": 1.4, "marker": "o" if len(epochs) == 1 else ""}
