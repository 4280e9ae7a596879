"""Accuracy against what a network costs, and the children that no other beats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.report.axes import WIDE, limit_accuracy, magnitude_ticks, plot_level
from pnas_fast.report.palette import INK, level_marker
from pnas_fast.report.record import RunRecord
from pnas_fast.runs.store import Trial

Cost = Callable[[Trial], int]

COSTS: dict[str, Cost] = {
    "parameters": lambda trial: trial.parameters,
    "multiply-adds": lambda trial: trial.multiply_adds,
}
"""What a child costs, by the name of the measure."""


def draw_costs(record: RunRecord) -> Figure:
    """One panel a measure of cost; ringed children are on the Pareto front, the stepped line."""
    figure = Figure(figsize=(WIDE, 4.0), layout="constrained")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    limit_accuracy(panels[0], record)
    for axes, (name, cost) in zip(panels, COSTS.items(), strict=True):
        _draw_panel(axes, record, cost)
        axes.set_xlabel(name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=6, handletextpad=0.3, columnspacing=1.6)
    return figure


def _draw_panel(axes: Axes, record: RunRecord, cost: Cost) -> None:
    for level in record.level_numbers:
        items = record.done_at(level)
        if items:
            plot_level(
                axes, items, [cost(item.trial) for item in items], f"level {level}", level_marker(level)
            )
    front = record.front(cost)
    costs, accuracies = [cost(item.trial) for item in front], [item.accuracy for item in front]
    axes.step(costs, accuracies, where="post", color=INK, linewidth=0.9)
    ring: dict[str, Any] = {
        "markersize": 8,
        "markerfacecolor": "none",
        "markeredgecolor": INK,
        "markeredgewidth": 1.0,
    }
    axes.plot(costs, accuracies, "o", label="Pareto front", **ring)
    axes.locator_params(axis="x", nbins=5)
    magnitude_ticks(axes.xaxis, max(cost(item.trial) for item in record.done))
