"""The levels of a progressive search: their children, and what was noted when each was finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pnas_fast.counting import share_of_space
from pnas_fast.protocols import Trial
from pnas_fast.report.text import number
from pnas_fast.report.view import Group, RunView
from pnas_fast.space import CellError


@dataclass(frozen=True, slots=True)
class LevelView:
    """A level that has a child or is finished; figures are None where it is not finished or lacks them.

    ``share`` is the part of all distinct cells of the level's size that was scored, in [0, 1].
    """

    group: Group
    note: Mapping[str, Any]
    share: float | None

    @property
    def is_finished(self) -> bool:
        """Whether all its children were trained and the surrogate fitted to them."""
        return bool(self.note)

    @property
    def candidates(self) -> float | None:
        """How many cells were scored."""
        return number(self.note.get("candidates"))

    @property
    def rho_before(self) -> float | None:
        """Spearman's ρ of predictions before the level was trained."""
        return number(self.note.get("rho_before"))

    @property
    def rho_after(self) -> float | None:
        """Spearman's ρ of predictions after the surrogate was fitted to the level."""
        return number(self.note.get("rho_after"))

    @property
    def surrogate_seconds(self) -> float | None:
        """Time of expanding, scoring and fitting."""
        return number(self.note.get("surrogate_seconds"))

    @property
    def best(self) -> Trial | None:
        """The best child."""
        return max(self.group.done, key=lambda trial: trial.order, default=None)

    @property
    def mean(self) -> float | None:
        """The mean accuracy of its children."""
        return fmean(trial.accuracy for trial in self.group.done) if self.group.done else None

    def predicted_after(self, trial: Trial) -> float | None:
        """What the surrogate expected of a child after it was fitted to it and the others."""
        after = self.note.get("predicted_after")
        return number(after.get(str(trial.number))) if isinstance(after, Mapping) else None


def levels_of(view: RunView) -> list[LevelView]:
    """All levels, in order; none for a run whose strategy has no levels."""
    notes = {note.values.get("level"): note.values for note in view.record.notes_named("level")}
    groups = {group.number: group for group in view.groups} if view.has_levels else {}
    numbers = sorted({key for key in notes if isinstance(key, int)} | set(groups))
    return [
        _level(view, groups.get(key) or Group(key, f"level {key}", ()), notes.get(key, {})) for key in numbers
    ]


def _level(view: RunView, group: Group, note: Mapping[str, Any]) -> LevelView:
    return LevelView(group, note, _share(view, group.number, number(note.get("candidates"))))


def _share(view: RunView, level: int, candidates: float | None) -> float | None:
    operations = view.record.config.get("operations")
    if candidates is None or not isinstance(operations, list):
        return None
    try:
        return share_of_space(int(candidates), level, operations)
    except CellError:
        return None
