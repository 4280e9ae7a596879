"""The sections that the page of every run has, whatever its strategy."""

from __future__ import annotations

from collections.abc import Collection

from pnas_fast.protocols import Trial
from pnas_fast.report.cost import Cost, costs_of, draw_costs
from pnas_fast.report.curves import curve_names, draw_curves
from pnas_fast.report.images import images_section
from pnas_fast.report.palette import OPERATION_STYLES
from pnas_fast.report.progress import draw_progress
from pnas_fast.report.section import Chart, Fact, Section
from pnas_fast.report.text import count, duration, magnitude, number
from pnas_fast.report.time import draw_times, stage_times
from pnas_fast.report.trials import trial_table
from pnas_fast.report.usage import compared_groups, draw_usage
from pnas_fast.report.view import RunView
from pnas_fast.space import CELL_INPUTS, Cell

TOP = 20
"""Trials that are shown at first, and where scripts do not run."""

MOST_FAILED = 200
"""Failed trials whose reasons have a table of their own; the table of all trials has the others."""

_PROGRESS = Chart(
    "progress",
    draw_progress,
    "Validation accuracy of every child in the search's order, with the best so far",
)
_COST = Chart("cost", draw_costs, "Validation accuracy against what a child costs, with the Pareto fronts")
_OPERATIONS = Chart(
    "operations",
    draw_usage,
    "Share of each operation among the best quarter of children and among all of them",
)
_CURVES = Chart("curves", draw_curves, "Learning curves of the best children and of others")
_TIME = Chart("time", draw_times, "Shares of time by what workers did, and images per second of every child")

_FILES = {
    "trials.sqlite": "every child: cell, accuracy, loss, seconds, images seen, size, error",
    "trials.csv": "the same as a table for spreadsheets and other programs",
    "config.json": "the configuration, which continues this run",
    "best.safetensors": "weights of the best child; python -m pnas_fast.export --run writes it as ONNX",
    "front": "weights of the children on the front, by number; python -m pnas_fast.export --pick takes one",
    "report.html": "this page",
    "workers.log": "what workers printed",
}


def headline(view: RunView, cost: str) -> list[Fact]:
    """Size of the best child and cost of the search, the latter in images, as the paper counts it.

    Args:
        view: the run.
        cost: a remark on the search's cost.
    """
    facts = list[Fact]()
    best = view.record.best
    if best is not None:
        sizes = [
            Fact("parameters", count(best.value("parameters")), "of the best child"),
            Fact("multiply-adds", magnitude(best.value("multiply_adds")), "an image, forward"),
        ]
        facts = [fact for fact, name in zip(sizes, ("parameters", "multiply_adds"), strict=True)
                 if view.has_value(name)]  # fmt: skip
    failed, repeated = len(view.failed), len(view.record.trials) - len(view.trials)
    remark = f"and {count(failed)} failed" if failed else "none failed"
    if repeated:
        remark += f"; {count(repeated)} asked for again"
    facts.append(Fact("children trained", count(len(view.done)), remark))
    images = view.total("images_seen")
    if images:
        facts.append(Fact("search cost", f"{magnitude(images)} images", cost))
    return [
        *_limits(view),
        *facts,
        Fact("time in children", duration(view.total("seconds")), "added up over all children"),
    ]


def sections_before(view: RunView) -> list[Section]:
    """What stands before the strategy's own sections: the best cells and the progress."""
    if not view.ranked:
        return []
    choice = [Section("choice", "The final choice", {"choice": view.choice})] if view.choice else []
    return [*choice, Section("search", "How the search went", charts=(_PROGRESS,))]


def sections_after(view: RunView, files: Collection[str]) -> list[Section]:
    """What stands after the strategy's own sections; ``files`` are the names of those beside the page."""
    found = []
    if view.ranked:
        if costs_of(view):
            values = {"costs": costs_of(view), "front": _front_rows(view), "aims": aims_in_words(view)}
            found.append(Section("cost", "What accuracy costs", values, (_COST,)))
        if compared_groups(view):
            found.append(Section("operations", "What good cells are made of", charts=(_OPERATIONS,)))
        if curve_names(view):
            found.append(Section("curves", "How children learned", charts=(_CURVES,)))
    if view.trials:
        table = trial_table(view)
        title = f"All {count(len(table.trials))} trials" if len(table.trials) > 1 else "The only trial"
        found.append(Section("trials", title, {"table": table, "top": table.trials[:TOP]}))
    times = stage_times(view)
    if times and view.done:
        memory = max(number(trial.value("memory")) or 0.0 for trial in view.trials)
        found.append(Section("time", "Where the time went", {"times": times, "memory": memory}, (_TIME,)))
    if view.failed:
        found.append(Section("failed", "Failed trials", {"failed": view.failed[:MOST_FAILED]}))
    present = {name: what for name, what in _FILES.items() if name in files}
    return [
        *found,
        *images_section(view),
        Section("configuration", "Configuration"),
        Section("files", "Files of this run", {"files": present}),
    ]


def aims_in_words(view: RunView) -> str:
    """A sentence on what cells were to be good at; empty for accuracy alone."""
    aims = view.record.aims
    if not aims:
        return ""
    names = {cost.value: cost.name for cost in costs_of(view)}
    goals = ["accuracy", *(f"few {names[cost.name]}" for cost in aims.costs)]
    goals += [f"at most {bound.most:,.12g} {names[bound.name]}" for _, bound in aims.limits]
    return f"The search was for {', '.join(goals)}, of the network to be deployed."


def _limits(view: RunView) -> list[Fact]:
    """What must not be overlooked."""
    aims, best = view.record.aims, view.record.best
    if best is None or not aims.violation(best.cell):
        return []
    bounds = " and ".join(str(bound) for _, bound in aims.limits)
    return [Fact("limits", "BROKEN", f"no finished cell keeps {bounds}")]


def _front_rows(view: RunView) -> list[tuple[Trial, list[str]]]:
    """The children on any Pareto front, the most accurate first, each with the names of those fronts."""

    def numbers(cost: Cost) -> set[int]:
        return {trial.number for trial in view.record.aims.front(view.done, [cost.of])}

    fronts = {cost.name: numbers(cost) for cost in costs_of(view)}
    if len(view.record.aims.costs) > 1:
        fronts["all objectives"] = {trial.number for trial in view.record.front}
    rows = [
        (trial, [name for name, front in fronts.items() if trial.number in front]) for trial in view.ranked
    ]
    return [(trial, ["all"] if len(names) == len(fronts) else names) for trial, names in rows if names]


def in_words(cell: Cell) -> list[tuple[int, str]]:
    """Each block's number as an input, and its two operations with what they read."""
    inputs = ["H[c−2]", "H[c−1]", *(f"block {CELL_INPUTS + index}" for index in range(len(cell)))]
    return [
        (
            CELL_INPUTS + index,
            " + ".join(
                f"{OPERATION_STYLES[operation].label} of {inputs[source]}"
                for source, operation in block.sides
            ),
        )
        for index, block in enumerate(cell.blocks)
    ]
