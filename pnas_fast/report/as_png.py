"""A run's figures as PNG, for programs that show no SVG."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.files import replacing
from pnas_fast.report.drawing import draw_cell
from pnas_fast.report.page import DRAWN_CELLS, sections_of
from pnas_fast.report.svg import report_style
from pnas_fast.report.view import RunView
from pnas_fast.runs.record import RunRecord

_DOTS = 150
"""An inch."""


def write_images(folder: Path, into: Path) -> list[Path]:
    """Write the charts and best cells of a run's report as PNG files; their paths.

    Args:
        folder: of the run.
        into: the folder they go to, which is made.

    Raises:
        As `pnas_fast.report.page.write_report`.
    """
    view = RunView(RunRecord.load(folder))
    into.mkdir(parents=True, exist_ok=True)
    paths = []
    with report_style():
        figures = {
            f"cell_{rank}": draw_cell(trial.cell)
            for rank, trial in enumerate(view.leading[:DRAWN_CELLS], start=1)
        }
        for section in sections_of(view):
            figures |= {chart.name: chart.draw(view, False) for chart in section.charts}
        for name, figure in figures.items():
            paths.append(into / f"{name}.png")
            with replacing(paths[-1]) as temporary:
                figure.savefig(temporary, format="png", dpi=_DOTS)
    return paths
