"""Where the time of the search went, stage by stage, and how fast each child trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.protocols import Trial
from pnas_fast.report.axes import NARROW, WIDE
from pnas_fast.report.dots import plot_dots
from pnas_fast.report.palette import BOX_INK, TIME_COLOURS, level_colour
from pnas_fast.report.text import is_known, number
from pnas_fast.report.view import RunView
from pnas_fast.runs.store import StoredNote

_LEAST_LABELLED = 0.06
"""A share that its bar has room to name."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Worker-seconds of a level, or of a whole search without levels, by what workers did, and its images.

    ``rest`` of a child's time is building it. While the surrogate works, all workers wait; that is not
    in ``waiting``. ``last`` is the part of ``waiting`` in which workers had no child left and waited for
    the last one. What a worker lost that died is in none of them.
    """

    label: str
    workers: float
    images: float
    training: float
    evaluation: float
    rest: float
    waiting: float
    last: float
    surrogate: float

    @property
    def total(self) -> float:
        """All worker-seconds."""
        return self.training + self.evaluation + self.rest + self.waiting + self.surrogate

    @property
    def shares(self) -> tuple[float, ...]:
        """The parts' shares of all worker-seconds in the order of `TIME_COLOURS`, sum 1."""
        parts = self.training, self.evaluation, self.rest, self.waiting, self.surrogate
        return tuple(part / self.total for part in parts)

    @property
    def last_share(self) -> float:
        """The share of waiting for the last child."""
        return self.last / self.total

    @property
    def images_per_second(self) -> float:
        """Of all workers together, over the stage's whole time."""
        return self.images / (self.total / self.workers)


def stage_times(view: RunView) -> list[StageTime]:
    """Finished stages all of whose children were measured: those of earlier versions' runs were not."""
    drained = view.record.notes_named("drained")
    if not view.has_levels:
        times = [_stage_time("whole search", view.trials, drained, 0.0)]
    else:
        times, since = [], 0
        groups = {group.number: group for group in view.groups}
        for note in view.record.notes_named("level"):
            group = groups.get(note.values.get("level", 0))
            if group is not None:
                own = [one for one in drained if since < one.at <= note.at]
                surrogate = number(note.values.get("surrogate_seconds")) or 0.0
                times.append(_stage_time(group.label, group.trials, own, surrogate))
            since = note.at
    return [time for time in times if time is not None]


def _stage_time(
    label: str, trials: Sequence[Trial], drained: Sequence[StoredNote], surrogate: float
) -> StageTime | None:
    waits = [trial.value("waiting_seconds") for trial in trials]
    workers = max((number(note.values.get("workers")) or 0.0 for note in drained), default=0.0)
    if not trials or workers < 1 or not all(map(is_known, waits)):
        return None
    training, evaluation = sum(map(_training, trials)), _sum(trials, "evaluation_seconds")
    last = sum(number(note.values.get("waited")) or 0.0 for note in drained)
    time = StageTime(
        label=label,
        workers=workers,
        images=_sum(trials, "images_seen"),
        training=training,
        evaluation=evaluation,
        rest=max(_sum(trials, "seconds") - training - evaluation, 0.0),
        waiting=sum(waits) + last,
        last=last,
        surrogate=surrogate * workers,
    )
    return time if time.total > 0 else None


def _training(trial: Trial) -> float:
    rate = number(trial.value("images_per_second"))
    return (number(trial.value("images_seen")) or 0.0) / rate if rate else 0.0


def _sum(trials: Sequence[Trial], name: str) -> float:
    return sum(number(trial.value(name)) or 0.0 for trial in trials)


def draw_times(view: RunView, narrow: bool = False) -> Figure:
    """Shares of each stage's worker-seconds, and each child's images a second by its place in the search."""
    if narrow:
        figure = Figure(figsize=(NARROW, 5.0), layout="constrained")
        bars, rates = figure.subplots(2, 1)
    else:
        figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
        bars, rates = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(bars, stage_times(view))
    _draw_rates(rates, view)
    columns = 3 if narrow else len(TIME_COLOURS)
    figure.legend(loc="outside upper left", ncols=columns, columnspacing=1.4)
    return figure


def _draw_shares(axes: Axes, times: list[StageTime]) -> None:
    rows = np.arange(len(times))
    ends = np.zeros(len(times))
    for part, (name, colour) in enumerate(TIME_COLOURS.items()):
        shares = np.array([time.shares[part] for time in times])
        axes.barh(rows, shares, left=ends, height=0.62, color=colour, label=name)
        for row, share, end in zip(rows, shares, ends, strict=True):
            if share >= _LEAST_LABELLED:
                text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": BOX_INK}
                axes.text(end + share / 2, int(row), f"{100 * share:.0f} %", **text)
        ends += shares
    axes.set(xlim=(0, 1), xlabel="share of the workers' time")
    axes.set_yticks(rows, [time.label for time in times])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _draw_rates(axes: Axes, view: RunView) -> None:
    for group in view.groups:
        trials = [trial for trial in group.done if is_known(trial.value("images_per_second"))]
        numbers = [trial.number for trial in trials]
        rates = [trial.value("images_per_second") for trial in trials]
        style: dict[str, Any] = {"color": level_colour(group.number), "markersize": 3.6, "alpha": 0.85}
        plot_dots(axes, trials, numbers, rates, "o", markeredgewidth=0, **style)
    axes.set(xlabel="children, in the search's order", ylabel="images/s of a child")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", visible=False)
