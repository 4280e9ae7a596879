"""What a controller's policy became: its entropy and what its batches were worth, update by update."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnas_fast.report.axes import NARROW, WIDE, padded, percent_ticks
from pnas_fast.report.palette import INK, MUTED
from pnas_fast.report.text import number
from pnas_fast.report.view import RunView


@dataclass(frozen=True, slots=True)
class Update:
    """A batch of proposals that the policy learned from.

    ``told`` counts all trials up to its last. ``entropy`` (nats) is that of the policy before it. ``reward``,
    its mean accuracy, and ``baseline`` are None where nothing had an accuracy.
    """

    told: int
    entropy: float
    reward: float | None
    baseline: float | None


def updates_of(view: RunView) -> list[Update]:
    """All updates whose entropy is known, in order; none for a run whose strategy has no policy."""
    found = []
    for note in view.record.notes_named("update"):
        entropy = number(note.values.get("entropy"))
        if entropy is not None:
            reward, baseline = (number(note.values.get(name)) for name in ("mean_reward", "baseline"))
            found.append(Update(note.at, entropy, reward, baseline))
    return found


def draw_updates(view: RunView, narrow: bool = False) -> Figure:
    """Each batch's mean accuracy with the baseline, and the policy's entropy, beside one another."""
    updates = updates_of(view)
    figure = Figure(figsize=(NARROW, 5.2) if narrow else (WIDE, 3.2), layout="constrained")
    accuracy, entropy = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    rewards = [(update.told, update.reward) for update in updates if update.reward is not None]
    baselines = [(update.told, update.baseline) for update in updates if update.baseline is not None]
    if rewards:
        values = [value for _, value in rewards + baselines]
        accuracy.set_ylim(*padded(min(values), max(values)))
    _plot(accuracy, rewards, INK, "o", "mean of a batch")
    _plot(accuracy, baselines, MUTED, "", "baseline")
    accuracy.set_ylabel("validation accuracy, %")
    percent_ticks(accuracy.yaxis)
    if rewards:
        accuracy.legend()
    _plot(entropy, [(update.told, update.entropy) for update in updates], INK, "o", "")
    entropy.set_ylim(0, 1.06 * max(0.1, *(update.entropy for update in updates)))
    entropy.set_ylabel("entropy of the policy, nats")
    for axes in (accuracy, entropy):
        axes.set_xlabel("proposals told")
        axes.set_xlim(0, 1 + 1.02 * updates[-1].told)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    return figure


def _plot(axes: Axes, points: list[tuple[int, float]], colour: str, marker: str, label: str) -> None:
    places, heights = [place for place, _ in points], [height for _, height in points]
    axes.plot(places, heights, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
