"""Where the time of the search went, level by level, and how fast each child trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.report.axes import WIDE
from pnas_fast.report.palette import BOX_INK, TIME_COLOURS, level_colour
from pnas_fast.report.record import RunRecord

_LEAST_LABELLED = 0.06
"""A share that its bar has room to name."""


@dataclass(frozen=True, slots=True)
class LevelTime:
    """Worker-seconds of a level by what workers did, in the order of `TIME_COLOURS`, and its images.

    ``rest`` of a child's time is building it. While the surrogate works, all workers wait; that is not
    in ``waiting``. What a worker lost that died is in none of them.
    """

    level: int
    workers: int
    images: int
    training: float
    evaluation: float
    rest: float
    waiting: float
    surrogate: float

    @property
    def shares(self) -> tuple[float, ...]:
        """The parts' shares of all worker-seconds, sum 1."""
        parts = self.training, self.evaluation, self.rest, self.waiting, self.surrogate
        return tuple(part / sum(parts) for part in parts)

    @property
    def images_per_second(self) -> float:
        """Of all workers together, over the level's whole time."""
        seconds = (self.training + self.evaluation + self.rest + self.waiting + self.surrogate) / self.workers
        return self.images / seconds


def level_times(record: RunRecord) -> list[LevelTime]:
    """Finished levels all of whose children were measured: those of earlier versions' runs were not."""
    times = [_level_time(record, number) for number in record.level_numbers]
    return [time for time in times if time is not None]


def _level_time(record: RunRecord, number: int) -> LevelTime | None:
    level = record.level(number)
    trials = [trial for trial in record.trials if trial.level == number]
    waited = [trial.waiting_seconds for trial in trials if trial.waiting_seconds is not None]
    if level is None or not level.workers or level.waiting_seconds is None or len(waited) < len(trials):
        return None
    seconds = sum(trial.seconds for trial in trials)
    training = sum(trial.training_seconds for trial in trials)
    evaluation = sum(trial.evaluation_seconds or 0.0 for trial in trials)
    return LevelTime(
        level=number,
        workers=level.workers,
        images=sum(trial.images_seen for trial in trials),
        training=training,
        evaluation=evaluation,
        rest=max(seconds - training - evaluation, 0.0),
        waiting=sum(waited) + level.waiting_seconds,
        surrogate=level.surrogate_seconds * level.workers,
    )


def draw_times(record: RunRecord) -> Figure:
    """Shares of each level's worker-seconds, and each child's images a second by its place in the search."""
    figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
    bars, rates = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(bars, level_times(record))
    _draw_rates(rates, record)
    figure.legend(loc="outside upper left", ncols=len(TIME_COLOURS), columnspacing=1.4)
    return figure


def _draw_shares(axes: Axes, times: list[LevelTime]) -> None:
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
    axes.set_yticks(rows, [f"level {time.level}" for time in times])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _draw_rates(axes: Axes, record: RunRecord) -> None:
    for level in record.level_numbers:
        trials = [item.trial for item in record.done_at(level)]
        places = [trial.position for trial in trials]
        rates = [trial.images_per_second for trial in trials]
        style: dict[str, Any] = {
            "color": level_colour(level),
            "markersize": 3.6,
            "alpha": 0.85,
            "markeredgewidth": 0,
        }
        axes.plot(places, rates, "o", **style)
    axes.set(xlabel="children, in training order", ylabel="images/s of a child")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", visible=False)
