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
from pnas_fast.train.history import Epoch, best_accuracy

CURVES = "training.svg"


def write_curves(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Draw a run's history into its folder; nothing without an epoch."""
    if not epochs:
        return
    title = f"Training loss after {len(epochs)} epochs"
    if _are_judged(epochs):
        best = percent(best_accuracy(epochs), 2)
        title = f"Training loss and validation accuracy after {len(epochs)} epochs, at best {best}"
    with report_style():
        figure = draw_curves(epochs)
        with writing(folder / CURVES):
            write_text(folder / CURVES, to_svg(figure, "training", title).file_text)


def draw_curves(epochs: Sequence[Epoch]) -> Figure:
    """Loss on the left; validation accuracy, that of averaged weights and the best on the right.

    Where validation images were trained on, loss alone.
    """
    figure = Figure(figsize=(WIDE, 3.6), layout="constrained")
    (left, *others) = figure.subplots(1, 1 + _are_judged(epochs), squeeze=False)[0]
    numbers = [epoch.epoch for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs], color=INK, **_style(epochs))
    left.set(title="Training loss", xlabel="epoch")
    for right in others:
        _draw_accuracies(right, epochs)
    for axes in (left, *others):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_accuracies(axes: Axes, epochs: Sequence[Epoch]) -> None:
    accuracies = [epoch.accuracy for epoch in epochs if epoch.accuracy is not None]
    axes.plot(
        [epoch.epoch for epoch in epochs],
        accuracies,
        color=level_colour(1),
        label="weights",
        **_style(epochs),
    )
    averaged = {epoch.epoch: value for epoch in epochs if (value := epoch.average_accuracy) is not None}
    if averaged:
        axes.plot(
            list(averaged),
            list(averaged.values()),
            color=level_colour(2),
            label="averaged weights",
            **_style(epochs),
        )
    best = best_accuracy(epochs)
    first = next(epoch.epoch for epoch in epochs if epoch.judged == best)
    axes.plot(first, best, "o", color=INK, label=f"best, {percent(best, 2)}")
    low, high = typical_range(accuracies)
    axes.set_ylim(*padded(low, max(high, best)))
    axes.set(title="Validation accuracy, %", xlabel="epoch")
    percent_ticks(axes.yaxis)
    axes.legend(loc="lower right")


def _are_judged(epochs: Sequence[Epoch]) -> bool:
    return any(epoch.judged is not None for epoch in epochs)


def _style(epochs: Sequence[Epoch]) -> dict[str, Any]:
    # A single epoch makes no line.
    return {"linewidth": 1.4, "marker": "o" if len(epochs) == 1 else ""}
