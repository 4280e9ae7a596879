"""A run as the page looks at it: how its children are grouped, and how sure each accuracy is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

from pnas_fast.engine.few_shot import REPTILE
from pnas_fast.protocols import Trial
from pnas_fast.report.text import is_known, number
from pnas_fast.runs.choice import Choice
from pnas_fast.runs.record import RunRecord

VALIDATION_IMAGES = "validation_images"
"""The name, in the configuration or among a trial's values, of how many images its accuracy is of."""


@dataclass(frozen=True, slots=True)
class Group:
    """Children of one colour in all figures: those of a level, or else with equally many blocks."""

    number: int
    label: str
    trials: tuple[Trial, ...]

    @property
    def done(self) -> list[Trial]:
        """Those that did not fail, in order of number."""
        return [trial for trial in self.trials if trial.done]

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(not trial.done for trial in self.trials)


class RunView:
    """What the parts of the page share, computed once; repeated proposals count once."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record

    @property
    def trials(self) -> list[Trial]:
        """What was evaluated, in order of number."""
        return self.record.distinct

    @property
    def done(self) -> list[Trial]:
        """Trials that did not fail and so have an accuracy, in order of number."""
        return self.record.done

    @property
    def ranked(self) -> list[Trial]:
        """Trials with an accuracy, the best first."""
        return self.record.ranked

    @property
    def learns_from_few(self) -> bool:
        """Whether children are judged by tasks of few images (the evaluator ``reptile``)."""
        return self.record.config.get("evaluator") == REPTILE

    @property
    def choice(self) -> Choice | None:
        """The final choice, where it has been made."""
        return self.record.choice

    @cached_property
    def leading(self) -> list[Trial]:
        """Trials of the best cells: the finalists', the chosen one first, then the others as ranked."""
        finalists = [finalist.found for finalist in self.choice.finalists] if self.choice else []
        numbers = {trial.number for trial in finalists}
        return finalists + [trial for trial in self.ranked if trial.number not in numbers]

    @property
    def failed(self) -> list[Trial]:
        """Failed trials, in order of number."""
        return self.record.failed

    @cached_property
    def by_number(self) -> dict[int, Trial]:
        """All trials, repeated proposals too."""
        return {trial.number: trial for trial in self.record.trials}

    @cached_property
    def has_levels(self) -> bool:
        """Whether the strategy went by levels: then they are the groups."""
        return bool(self.trials) and all(_level(trial) is not None for trial in self.trials)

    @property
    def grouping(self) -> str:
        """What a group's number counts."""
        return "level" if self.has_levels else "blocks"

    def group_number(self, trial: Trial) -> int:
        """The number of a trial's group."""
        level = _level(trial) if self.has_levels else None
        return len(trial.cell) if level is None else level

    @cached_property
    def groups(self) -> list[Group]:
        """All groups that have a trial, in order of their number."""
        members: dict[int, list[Trial]] = {}
        for trial in self.trials:
            members.setdefault(self.group_number(trial), []).append(trial)
        return [Group(key, self._label(key), tuple(members[key])) for key in sorted(members)]

    def _label(self, key: int) -> str:
        if self.has_levels:
            return f"level {key}"
        return "1 block" if key == 1 else f"{key} blocks"

    def standard_error(self, trial: Trial) -> float | None:
        """√(p(1−p)/n) of a trial's accuracy p over n validation images; None where n is not known.

        Where the trial knows its error, ``accuracy_error``, it is that.
        """
        if is_known(own := trial.value("accuracy_error")):
            return own
        images = number(self.record.config.get(VALIDATION_IMAGES)) or trial.value(VALIDATION_IMAGES)
        accuracy = trial.accuracy
        if not images >= 1 or not 0 <= accuracy <= 1:
            return None
        return sqrt(accuracy * (1 - accuracy) / images)

    def has_value(self, name: str) -> bool:
        """Whether some trial with an accuracy has a value of that name."""
        return any(is_known(trial.value(name)) for trial in self.done)

    def total(self, name: str) -> float:
        """The sum of a value over all trials that have it."""
        return sum(number(trial.value(name)) or 0.0 for trial in self.trials)


def _level(trial: Trial) -> int | None:
    level = trial.proposal.note.get("level")
    return level if isinstance(level, int) and not isinstance(level, bool) else None
