"""The page of a progressive search: its levels, and how well accuracy was predicted."""

from __future__ import annotations

from pnas_fast.report.levels import levels_of
from pnas_fast.report.prediction import draw_predictions, predicted_levels, predicts_scores
from pnas_fast.report.section import Chart, Fact, Section, StrategyPage
from pnas_fast.report.text import duration, magnitude, number, plural
from pnas_fast.report.view import RunView

PAPER_IMAGES = 1_160 * 20 * 45_000
"""What the paper's search cost, M1·E1: children times epochs times training images."""

_CHART = Chart(
    "prediction",
    draw_predictions,
    "Predicted against measured accuracy of each level's children, before and after fitting",
)

_SCORES = Chart(
    "prediction",
    draw_predictions,
    "Predicted score, learned from validation losses, against measured accuracy of each level's children, "
    "before and after fitting",
)


def _facts(view: RunView) -> list[Fact]:
    seconds = sum(level.surrogate_seconds or 0.0 for level in levels_of(view))
    return [Fact("time in surrogate", duration(seconds), "expanding, scoring, fitting")]


def _sections(view: RunView) -> list[Section]:
    found = []
    if predicted_levels(view):
        chart = _SCORES if predicts_scores(view) else _CHART
        found.append(Section("prediction", "How well accuracy was predicted", charts=(chart,)))
    levels = levels_of(view)
    if levels:
        found.append(Section("levels", "Levels", {"levels": levels}))
    return found


def _unfinished(view: RunView) -> str:
    planned = number(view.record.config.get("blocks"))
    done = sum(level.is_finished for level in levels_of(view))
    if planned is None or done >= planned:
        return ""
    trained = plural(len(view.trials), "child", "children")
    return f"Unfinished: {done} of {plural(int(planned), 'level', 'levels')} done, {trained} so far."


PAGE = StrategyPage(
    title="Progressive neural architecture search",
    explanation="Progressive search trains all cells of one block, fits a surrogate that predicts accuracy "
    "from a cell's description, lets it score every cell of one block more, and trains the most promising: "
    "that is a level. Spearman's ρ tells how well the surrogate put a level's children in order: 1 is "
    "perfect, 0 is chance.",
    cost=f"the paper's search: {magnitude(PAPER_IMAGES)}",
    facts=_facts,
    sections=_sections,
    unfinished=_unfinished,
)
