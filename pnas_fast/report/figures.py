"""Which figures a run has, and what each shows in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from pnas_fast.report.cost import draw_costs
from pnas_fast.report.drawing import draw_cell
from pnas_fast.report.prediction import draw_predictions, predicted_levels
from pnas_fast.report.progress import draw_progress
from pnas_fast.report.record import RunRecord
from pnas_fast.report.svg import SvgFigure, report_style, to_svg
from pnas_fast.report.text import percent, plural
from pnas_fast.report.time import draw_times, level_times
from pnas_fast.report.usage import compared_levels, draw_usage
from pnas_fast.space import Cell

DRAWN_CELLS = 3
"""So many of the best cells are drawn."""


@dataclass(frozen=True, slots=True)
class _Chart:
    name: str
    draw: Callable[[RunRecord], Figure]
    has_data: Callable[[RunRecord], bool]
    title: str


_CHARTS = (
    _Chart(
        "progress",
        draw_progress,
        lambda record: bool(record.done),
        "Validation accuracy of every child in training order, by level, with the best so far",
    ),
    _Chart(
        "prediction",
        draw_predictions,
        lambda record: bool(predicted_levels(record)),
        "Predicted against measured accuracy of each level's children, before and after fitting",
    ),
    _Chart(
        "cost",
        draw_costs,
        lambda record: bool(record.done),
        "Validation accuracy against parameters and against multiply-adds, with the Pareto fronts",
    ),
    _Chart(
        "operations",
        draw_usage,
        lambda record: bool(compared_levels(record)),
        "Share of each operation among the best quarter of each level's children and among all of them",
    ),
    _Chart(
        "time",
        draw_times,
        lambda record: bool(record.done and level_times(record)),
        "Share of each level's time by what workers did, and images per second of every child",
    ),
)


def draw_charts(record: RunRecord) -> dict[str, SvgFigure]:
    """The charts that the run has data for, by name."""
    with report_style():
        return {
            chart.name: to_svg(chart.draw(record), chart.name, chart.title)
            for chart in _CHARTS
            if chart.has_data(record)
        }


def draw_best_cells(record: RunRecord) -> list[SvgFigure]:
    """Drawings of the best cells, the best one first: ``cell_1``, ``cell_2``, …"""
    drawings = []
    with report_style():
        for rank, item in enumerate(record.ranked[:DRAWN_CELLS], start=1):
            cell = Cell.parse(item.trial.cell)
            size = plural(len(cell), "block", "blocks")
            title = f"Cell ranked {rank}, {size}, {percent(item.accuracy, 2)}: {cell}"
            drawings.append(to_svg(draw_cell(cell), f"cell_{rank}", title))
    return drawings
