"""The page of a comparison: one file that opens offline, in the report's style."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.figure import draw_comparison, draw_hypervolumes
from pnas_fast.compare.rigour import SHARED
from pnas_fast.compare.tables import AXIS_NAMES, tables_of
from pnas_fast.compare.target import images_ratio
from pnas_fast.report.page import environment, resource
from pnas_fast.report.section import DrawnChart
from pnas_fast.report.svg import SvgFigure, report_style, to_svg
from pnas_fast.version import VERSION

_REMARKS = {True: "shared trainings: a cell has one accuracy", False: "independent trainings: noise included"}


def render_page(comparison: Comparison, summary: dict[str, Any]) -> tuple[str, list[SvgFigure]]:
    """The page of a comparison, and its figures as files."""
    with report_style():
        charts = {axis: _chart(comparison, summary, axis) for axis in comparison.axes}
        fronts = _fronts(comparison, summary) if comparison.hypervolumes else None
    paper = {"nas": images_ratio(5808, 0.9e6, 250 * 13.5e6, 1160 * 0.9e6), "models": 5808 / 1160}
    page = environment("pnas_fast.compare").get_template("compare.html.j2").render(
        version=VERSION,
        css=Markup(resource("style.css")),
        summary=summary,
        tables={table.name: table for table in tables_of(summary)},
        charts=charts,
        fronts=fronts,
        axis_names=AXIS_NAMES,
        shared=summary["trainings"] == SHARED,
        paper=paper,
    )  # fmt: skip
    return page, [chart.wide for chart in (*charts.values(), *([fronts] if fronts else []))]


def _fronts(comparison: Comparison, summary: dict[str, Any]) -> DrawnChart:
    remark, narrow_remark = _remarks(comparison, summary)
    title = "Hypervolume of the front against children trained"
    wide = to_svg(draw_hypervolumes(comparison, remark), "hypervolume", title)
    narrow = draw_hypervolumes(comparison, narrow_remark, narrow=True)
    return DrawnChart(wide, to_svg(narrow, "hypervolume_narrow", title))


def _chart(comparison: Comparison, summary: dict[str, Any], axis: str) -> DrawnChart:
    remark, narrow_remark = _remarks(comparison, summary)
    title = f"Accuracy of the best 1, 5 and 25 cells against {AXIS_NAMES[axis]}"
    wide = to_svg(draw_comparison(comparison, axis, remark), axis, title)
    narrow = to_svg(draw_comparison(comparison, axis, narrow_remark, narrow=True), f"{axis}_narrow", title)
    return DrawnChart(wide, narrow)


def _remarks(comparison: Comparison, summary: dict[str, Any]) -> tuple[str, str]:
    """What is written below a figure, and below one for a telephone."""
    counts = sorted({len(group.runs) for group in comparison.groups})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    is_shared = summary["trainings"] == SHARED
    return (
        f"n = {runs} runs a strategy; {_REMARKS[is_shared]}; band: standard error",
        f"n = {runs}; {'shared' if is_shared else 'independent'} trainings",
    )
