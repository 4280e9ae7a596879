"""The rounds of a search with a surrogate: how well each one's children were predicted, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.report.axes import NARROW, WIDE
from pnas_fast.report.palette import INK, MUTED
from pnas_fast.report.section import Chart, Section
from pnas_fast.report.text import number
from pnas_fast.report.view import RunView

_SMOOTHED = 5


@dataclass(frozen=True, slots=True)
class RoundView:
    """A finished round: the number of its last child, its ρ if there is one, and the strategy's seconds."""

    last: int
    rho: float | None
    seconds: float


def rounds_of(view: RunView) -> list[RoundView]:
    """All finished rounds, in order."""
    return [
        RoundView(
            note.at - 1, number(note.values.get("rho")), number(note.values.get("strategy_seconds")) or 0
        )
        for note in view.record.notes_named("round")
    ]


def mean_rho(rounds: Sequence[RoundView]) -> float | None:
    """The mean of the rounds' ρ; None where none has one."""
    known = [found.rho for found in rounds if found.rho is not None]
    return fmean(known) if known else None


def rounds_sections(view: RunView) -> list[Section]:
    """How well each round was predicted; nothing where no round was."""
    rounds = rounds_of(view)
    if mean_rho(rounds) is None:
        return []
    values = {"rounds": len(rounds), "seconds": fmean(found.seconds for found in rounds)}
    return [Section("rounds", "How well accuracy was predicted", values, (_CHART,))]


def draw_rounds(view: RunView, narrow: bool = False) -> Figure:
    """Spearman's ρ of each round that has one, and the mean of the last five."""
    known = [(found.last, found.rho) for found in rounds_of(view) if found.rho is not None]
    places, values = [last for last, _ in known], [rho for _, rho in known]
    figure = Figure(figsize=(NARROW, 2.4) if narrow else (WIDE, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color=MUTED, linewidth=0.9, dashes=(4, 3))
    axes.plot(places, values, "o", color=MUTED, markersize=4, markeredgewidth=0)
    means = [fmean(values[max(0, end - _SMOOTHED) : end]) for end in range(1, len(values) + 1)]
    axes.plot(places, means, color=INK, linewidth=1.2)
    axes.set(
        xlabel="children, in the search's order", xlim=(-1, view.trials[-1].number + 1), ylim=(-1.05, 1.05)
    )
    axes.set_ylabel("Spearman's ρ")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 10, integer=True))
    return figure


_CHART = Chart("rounds", draw_rounds, "Rank correlation of predicted and measured accuracy, by round")
