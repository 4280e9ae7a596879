"""Accuracy against what a network costs, and the children that no other beats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.objectives import Accuracy, pareto_front
from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE, limit_accuracy, magnitude_ticks, name_group, plot_group
from pnas_fast.report.palette import INK, level_marker
from pnas_fast.report.text import number
from pnas_fast.report.view import RunView


@dataclass(frozen=True, slots=True)
class Cost:
    """What a child costs: the name of the value, what people call it, and how it is written."""

    value: str
    name: str
    kind: str

    def of(self, trial: Trial) -> float:
        """The cost of a child; NaN where it was not measured."""
        value = number(trial.value(self.value))
        return float("nan") if value is None else value


_COSTS = (
    Cost("parameters", "parameters", "count"),
    Cost("multiply_adds", "multiply-adds", "magnitude"),
    Cost("latency_ms", "latency, ms", "plain"),
)


def costs_of(view: RunView) -> list[Cost]:
    """The costs that some child with an accuracy was measured in."""
    return [cost for cost in _COSTS if view.has_value(cost.value)]


def draw_costs(view: RunView, narrow: bool = False) -> Figure:
    """One panel a measure of cost; ringed children are on the Pareto front, the stepped line.

    Those have their standard errors, where they are known.
    """
    costs = costs_of(view)
    size = (NARROW, 0.5 + 2.9 * len(costs)) if narrow else (WIDE, 4.0)
    figure = Figure(figsize=size, layout="constrained")
    rows, columns = (len(costs), 1) if narrow else (1, len(costs))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    limit_accuracy(panels[0], view)
    for axes, cost in zip(panels, costs, strict=True):
        _draw_panel(axes, view, cost.of)
        axes.set_xlabel(cost.name)
        if narrow:
            axes.set_ylabel("validation accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    where: dict[str, Any] = {"loc": "outside upper left", "handletextpad": 0.3, "columnspacing": 1.6}
    figure.legend(handles, labels, ncols=3 if narrow else 6, **where)
    return figure


def _draw_panel(axes: Axes, view: RunView, cost: Callable[[Trial], float]) -> None:
    for group in view.groups:
        trials = [trial for trial in group.done if cost(trial) == cost(trial)]
        if trials:
            marker = level_marker(group.number)
            name_group(axes, group, group.label, marker)
            plot_group(axes, group, trials, [cost(trial) for trial in trials], marker)
    front = pareto_front(view.done, cost, Accuracy().of)
    costs, accuracies = [cost(trial) for trial in front], [trial.accuracy for trial in front]
    axes.step(costs, accuracies, where="post", color=INK, linewidth=0.9)
    ring: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgecolor": INK}
    axes.plot(costs, accuracies, "o", label="Pareto front", markeredgewidth=1.0, **ring)
    for at, trial in zip(costs, front, strict=True):
        error = view.standard_error(trial)
        if error:
            axes.vlines(at, trial.accuracy - error, trial.accuracy + error, color=INK, linewidth=0.9)
    axes.locator_params(axis="x", nbins=5)
    magnitude_ticks(axes.xaxis, max(costs))
