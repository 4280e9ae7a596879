"""The page: everything a run tells, in one file that opens offline."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pnas_fast.files import write_text
from pnas_fast.report import text
from pnas_fast.report.figures import draw_best_cells, draw_charts
from pnas_fast.report.record import RunRecord
from pnas_fast.report.svg import SvgFigure
from pnas_fast.report.tables import front_rows, headline, level_rows, progress_text
from pnas_fast.report.time import level_times
from pnas_fast.version import VERSION

TOP = 20
"""Trials in the page's table of the best."""

_FILES = {
    "trials.sqlite": "every child: cell, level, accuracy, loss, seconds, images seen, size, error",
    "config.json": "the configuration, which continues this run",
    "best.safetensors": "weights of the best child; python -m pnas_fast.export --run writes it as ONNX",
    "report.html": "this page",
    "workers.log": "what workers printed",
}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/*.svg`` of the run in ``folder``, finished or not.

    Every file is written whole and then renamed, and depends on nothing but the run: the same run
    gives the same bytes.

    Returns:
        The path of the page.

    Raises:
        ReportError: ``trials.sqlite`` or ``config.json`` is missing or unreadable.
        StoreError: ``trials.sqlite`` is not a trial store.
        OSError: the folder cannot be written.
    """
    record = RunRecord.load(folder)
    charts, cells = draw_charts(record), draw_best_cells(record)
    figures = [*cells, *charts.values()]
    (folder / "figures").mkdir(exist_ok=True)
    for figure in figures:
        write_text(folder / "figures" / f"{figure.name}.svg", figure.file_text)
    page = folder / "report.html"
    present = {name: what for name, what in _FILES.items() if name == page.name or (folder / name).is_file()}
    write_text(
        page,
        _environment()
        .from_string(_resource("page.html.j2"))
        .render(
            version=VERSION,
            css=Markup(_resource("style.css")),
            record=record,
            headline=headline(record),
            progress=progress_text(record),
            charts=charts,
            cells=list(zip(cells, record.ranked, strict=False)),
            top=record.ranked[:TOP],
            levels=level_rows(record),
            front=front_rows(record),
            times=level_times(record),
            memory=max((trial.memory or 0 for trial in record.trials), default=0),
            files=present,
            figures=figures,
        ),
    )
    return page


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {
        "correlation": text.correlation,
        "duration": text.duration,
        "grouped": text.count,  # Jinja has a filter of its own called count
        "gib": text.gib,
        "inline": _inline,
        "magnitude": text.magnitude,
        "percent": text.percent,
        "plural": text.plural,
        "setting": text.setting,
        "share": text.share,
    }
    environment.filters |= filters
    return environment


def _inline(figure: SvgFigure) -> Markup:
    return Markup(figure.inline)


def _resource(name: str) -> str:
    return files("pnas_fast.report").joinpath(name).read_text(encoding="utf-8")
