"""Accuracy against what a network costs, and the children that no other beats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnas_fast.protocols import Objective, Trial
from pnas_fast.report.axes import NARROW, WIDE, limit_accuracy, magnitude_ticks, name_group, plot_group
from pnas_fast.report.palette import INK, MUTED, level_marker
from pnas_fast.report.text import number
from pnas_fast.report.view import RunView


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cell costs: the name of the value, what people call it, and how it is written.

    ``known`` gives it where it is that of the network to be deployed, else it was measured of the child.
    ``most`` is the limit that there may be.
    """

    value: str
    name: str
    kind: str
    known: Objective | None = None
    most: float | None = None

    def of(self, trial: Trial) -> float:
        """The cost of a trial's cell; NaN where it was not measured."""
        value = number(trial.value(self.value) if self.known is None else self.known.of(trial))
        return float("nan") if value is None else value


_COSTS = (
    Cost("parameters", "parameters", "count"),
    Cost("multiply_adds", "multiply-adds", "magnitude"),
    Cost("latency_ms", "latency, ms", "plain"),
    Cost("memory_mib", "memory, MiB", "plain"),
)


def costs_of(view: RunView) -> list[Cost]:
    """Costs of cells: those of the network to be deployed that are known, and those that were measured."""
    known = view.record.costs
    most = {bound.name: bound.most for _, bound in view.record.aims.limits}
    return [
        replace(cost, known=known.get(cost.value), most=most.get(cost.value))
        for cost in _COSTS
        if cost.value in known or view.has_value(cost.value)
    ]


def draw_costs(view: RunView, narrow: bool = False) -> Figure:
    """One panel a measure of cost; ringed children are on the Pareto front, the stepped line.

    Those have their standard errors, where they are known. Cells that break a limit are grey, and on a front
    only where all do; a limit is a dashed line.
    """
    costs = costs_of(view)
    size = (NARROW, 0.5 + 2.9 * len(costs)) if narrow else (WIDE, 4.0)
    figure = Figure(figsize=size, layout="constrained")
    rows, columns = (len(costs), 1) if narrow else (1, len(costs))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    limit_accuracy(panels[0], view)
    for axes, cost in zip(panels, costs, strict=True):
        _draw_panel(axes, view, cost)
        axes.set_xlabel(cost.name)
        if narrow:
            axes.set_ylabel("validation accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    where: dict[str, Any] = {"loc": "outside upper left", "handletextpad": 0.3, "columnspacing": 1.6}
    figure.legend(handles, labels, ncols=3 if narrow else 6, **where)
    return figure


def _draw_panel(axes: Axes, view: RunView, cost: Cost) -> None:
    for group in view.groups:
        marker = level_marker(group.number)
        trials = [trial for trial in group.done if cost.of(trial) == cost.of(trial)]
        over = [trial for trial in trials if view.record.aims.violation(trial.cell)]
        inside = [trial for trial in trials if trial not in over]
        if inside:
            name_group(axes, group, group.label, marker)
        for own, colour in ((over, MUTED), (inside, None)):
            plot_group(axes, group, own, [cost.of(trial) for trial in own], marker, colour)
    if view.record.aims.limits:
        axes.plot([], [], "o", color=MUTED, markersize=4.4, markeredgewidth=0, label="over a limit")
    if cost.most is not None:
        axes.axvline(cost.most, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="limit")
    front = view.record.aims.front(view.done, [cost.of])[::-1]
    costs, accuracies = [cost.of(trial) for trial in front], [trial.accuracy for trial in front]
    axes.step(costs, accuracies, where="post", color=INK, linewidth=0.9)
    ring: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgecolor": INK}
    axes.plot(costs, accuracies, "o", label="Pareto front", markeredgewidth=1.0, **ring)
    for at, trial in zip(costs, front, strict=True):
        error = view.standard_error(trial)
        if error:
            axes.vlines(at, trial.accuracy - error, trial.accuracy + error, color=INK, linewidth=0.9)
    axes.locator_params(axis="x", nbins=5)
    magnitude_ticks(axes.xaxis, max(costs, default=0.0))
