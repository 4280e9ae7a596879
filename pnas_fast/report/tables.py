"""What the page says in words and tables, computed from the record."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from pnas_fast.counting import share_of_space
from pnas_fast.report.cost import COSTS
from pnas_fast.report.record import PAPER_IMAGES, FinishedTrial, RunRecord
from pnas_fast.report.text import count, duration, magnitude, plural
from pnas_fast.space import CellError


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of the headline: its name, its value, and a remark that may be empty."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class LevelRow:
    """One line of the table of levels; None where a level is not finished or has no finished child.

    ``share`` is the part of all distinct cells of the level's size that was scored, in [0, 1].
    """

    level: int
    candidates: int | None
    share: float | None
    children: int
    failed: int
    best: float | None
    mean: float | None
    rho_before: float | None
    rho_after: float | None
    surrogate_seconds: float | None


@dataclass(frozen=True, slots=True)
class FrontRow:
    """A child on a Pareto front, and the names of the costs on whose front it is."""

    item: FinishedTrial
    costs: str


def headline(record: RunRecord) -> list[Fact]:
    """Size of the best child and cost of the search, which is counted as in the paper (docs/method.md, 2)."""
    facts = []
    if record.ranked:
        best = record.ranked[0].trial
        facts = [
            Fact("parameters", count(best.parameters), "of the best child"),
            Fact("multiply-adds", magnitude(best.multiply_adds), "an image, forward"),
        ]
    failed = len(record.failed)
    images = f"the paper's search: {magnitude(PAPER_IMAGES)}"
    return [
        *facts,
        Fact(
            "children trained",
            count(len(record.done)),
            f"and {count(failed)} failed" if failed else "none failed",
        ),
        Fact("search cost", f"{magnitude(record.images_seen)} images", images),
        Fact("time in children", duration(record.child_seconds), "added up over all children"),
        Fact("time in surrogate", duration(record.surrogate_seconds), "expanding, scoring, fitting"),
    ]


def progress_text(record: RunRecord) -> str:
    """Why the run is not finished, as one sentence; empty where it is."""
    done, planned = len(record.levels), record.planned_levels
    if planned is None or done >= planned:
        return ""
    trained = plural(len(record.trials), "child", "children")
    return f"Unfinished: {done} of {plural(planned, 'level', 'levels')} done, {trained} so far."


def level_rows(record: RunRecord) -> list[LevelRow]:
    """One row a level that has a trial or is finished."""
    return [_level_row(record, number) for number in record.level_numbers]


def _level_row(record: RunRecord, number: int) -> LevelRow:
    level = record.level(number)
    accuracies = [item.accuracy for item in record.done_at(number)]
    candidates = None if level is None else level.candidates
    return LevelRow(
        level=number,
        candidates=candidates,
        share=_share(record, number, candidates),
        children=len(accuracies),
        failed=sum(trial.level == number for trial in record.failed),
        best=max(accuracies, default=None),
        mean=fmean(accuracies) if accuracies else None,
        rho_before=None if level is None else level.rho_before,
        rho_after=None if level is None else level.rho_after,
        surrogate_seconds=None if level is None else level.surrogate_seconds,
    )


def _share(record: RunRecord, level: int, candidates: int | None) -> float | None:
    operations = record.config.get("operations")
    if candidates is None or not isinstance(operations, list):
        return None
    try:
        return share_of_space(candidates, level, operations)
    except CellError:
        return None


def front_rows(record: RunRecord) -> list[FrontRow]:
    """The children on any Pareto front, the most accurate first."""
    fronts = {name: record.front(cost) for name, cost in COSTS.items()}
    rows = []
    for item in record.ranked:
        names = [name for name, front in fronts.items() if item in front]
        if names:
            rows.append(FrontRow(item, "both" if len(names) == len(COSTS) else names[0]))
    return rows
