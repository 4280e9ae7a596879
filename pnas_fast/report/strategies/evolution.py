"""The page of an evolution: where its best cell came from."""

from __future__ import annotations

from pnas_fast.report.lineage import draw_lineage, line_of
from pnas_fast.report.planned import unfinished_budget
from pnas_fast.report.section import Chart, Section, StrategyPage
from pnas_fast.report.view import RunView

_CHART = Chart("lineage", draw_lineage, "Validation accuracy along the best cell's line of parents")


def _sections(view: RunView) -> list[Section]:
    if not view.ranked or not any("parent" in trial.proposal.note for trial in view.trials):
        return []
    line = line_of(view, view.ranked[0])
    return [Section("lineage", "Where the best cell came from", {"line": line}, (_CHART,))]


PAGE = StrategyPage(
    title="Regularised evolution",
    explanation="Evolution changes one thing about the best of a few cells drawn from a population, puts the "
    "child into it and takes the oldest out, however good that is.",
    sections=_sections,
    unfinished=unfinished_budget,
)
