"""Where an evolved cell came from: its parent, that one's parent, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, zip_longest

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE, padded, percent_ticks
from pnas_fast.report.dots import plot_dots
from pnas_fast.report.palette import INK, MUTED
from pnas_fast.report.section import Chart, Section
from pnas_fast.report.view import RunView


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A trial of a line of parents: its gain in accuracy over its own parent, if any, and what changed."""

    trial: Trial
    gain: float | None
    changed: str


def lineage_sections(view: RunView) -> list[Section]:
    """Where the best cell came from; nothing where no trial has a parent."""
    if not view.ranked or not any("parent" in trial.proposal.note for trial in view.trials):
        return []
    line = line_of(view, view.ranked[0])
    return [Section("lineage", "Where the best cell came from", {"line": line}, (_CHART,))]


def line_of(view: RunView, trial: Trial) -> list[Ancestor]:
    """A trial's parents from the first, which has none, to the trial itself."""
    line = [trial]
    while (parent := _parent(view, line[-1])) is not None:
        line.append(parent)
    line.reverse()
    first = Ancestor(line[0], None, "")
    return [first, *(_child(one, other) for one, other in pairwise(line))]


def _parent(view: RunView, trial: Trial) -> Trial | None:
    """A trial's parent: an earlier one that has an accuracy, so that no line is endless."""
    key = trial.proposal.note.get("parent")
    parent = view.by_number.get(key) if isinstance(key, int) and key < trial.number else None
    return parent if parent is not None and parent.done else None


def _child(parent: Trial, trial: Trial) -> Ancestor:
    pairs = zip_longest(map(str, parent.cell.blocks), map(str, trial.cell.blocks), fillvalue="none")
    changes = [f"{one} → {other}" for one, other in pairs if one != other]
    changed = f"{len(changes)} blocks" if len(changes) > 2 else ", ".join(changes)
    return Ancestor(trial, trial.accuracy - parent.accuracy, changed or "nothing")


def draw_lineage(view: RunView, narrow: bool = False) -> Figure:
    """Accuracy along the best cell's line of parents, over all other children."""
    line = [ancestor.trial for ancestor in line_of(view, view.ranked[0])]
    figure = Figure(figsize=(NARROW, 3.0) if narrow else (WIDE, 3.2), layout="constrained")
    axes = figure.add_subplot()
    accuracies = [trial.accuracy for trial in line]
    low, high = padded(min(accuracies), max(accuracies))
    places = [trial.number for trial in line]
    of_line = set(places)
    others = [trial for trial in view.done if trial.number not in of_line and low <= trial.accuracy <= high]
    numbers = [trial.number for trial in others]
    heights = [trial.accuracy for trial in others]
    plot_dots(axes, others, numbers, heights, "o", color=MUTED, alpha=0.4, markersize=3, markeredgewidth=0)
    axes.plot(places, accuracies, color=INK, linewidth=1.2)
    plot_dots(axes, line, places, accuracies, "o", color=INK, markersize=6, markeredgewidth=0)
    axes.set(
        xlabel="children, in the search's order", xlim=(-1, view.trials[-1].number + 1), ylim=(low, high)
    )
    axes.set_ylabel("validation accuracy, %")
    percent_ticks(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 10, integer=True))
    return figure


_CHART = Chart("lineage", draw_lineage, "Validation accuracy along the best cell's line of parents")
