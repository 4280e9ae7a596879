"""The page: everything a run tells, in one file that opens offline."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pnas_fast.files import write_text
from pnas_fast.report import text
from pnas_fast.report.common import headline, in_words, sections_after, sections_before
from pnas_fast.report.drawing import draw_cell
from pnas_fast.report.planned import unfinished_choice
from pnas_fast.report.section import DrawnChart, Section, draw_chart
from pnas_fast.report.strategies import page_of
from pnas_fast.report.svg import SvgFigure, report_style, to_svg
from pnas_fast.report.trials import trials_csv
from pnas_fast.report.view import RunView
from pnas_fast.runs.folder import REPORT
from pnas_fast.runs.record import RunRecord
from pnas_fast.version import VERSION

FIGURES = "figures"
TRIALS_CSV = "trials.csv"

DRAWN_CELLS = 3
"""So many of the best cells are drawn."""


@dataclass(frozen=True, slots=True)
class Report:
    """A run's page as text, its figures' SVG by the names of their files, and its trials as CSV.

    ``policy`` is the page's Content-Security-Policy.
    """

    page: str
    policy: str
    figures: Mapping[str, str]
    trials: str


def write_report(folder: Path) -> Path:
    """Write ``report.html``, ``trials.csv`` and ``figures/*.svg`` of the run in ``folder``, finished or not.

    Every file is written whole and then renamed, and depends on nothing but the run: the same run
    gives the same bytes.

    Returns:
        The path of the page.

    Raises:
        RunError, ConfigError, StoreError, MachineError: as `render_report`.
        OSError: the folder cannot be written.
    """
    report = render_report(folder)
    (folder / FIGURES).mkdir(exist_ok=True)
    for name, figure in report.figures.items():
        write_text(folder / FIGURES / name, figure)
    write_text(folder / TRIALS_CSV, report.trials)
    write_text(folder / REPORT, report.page)
    return folder / REPORT


def render_report(folder: Path, live_script: str = "") -> Report:
    """The page of the run in ``folder``, finished or not, with what it links to; nothing is written.

    Args:
        folder: the run's.
        live_script: what makes a page renew itself that is served while its run goes on; such a page links
            to no other files of the run than its figures and trials, and may ask its own server for more.

    Raises:
        RunError: there is no run, or its configuration was edited since its trials were made.
        ConfigError: ``config.json`` cannot be read.
        StoreError: ``trials.sqlite`` is damaged or something else.
        MachineError: another program holds ``trials.sqlite``, or the disk cannot be read.
    """
    view = RunView(RunRecord.load(folder))
    strategy = page_of(view.record.strategy)
    beside = {TRIALS_CSV} if live_script else {path.name for path in folder.iterdir()} | {TRIALS_CSV, REPORT}
    sections = sections_of(view, beside)
    cells, charts = _draw_best_cells(view), _draw_charts(view, sections)
    figures = [*cells, *(chart.wide for chart in charts.values())]
    script = live_script + resource("page.js")
    policy = _policy(script, asks=bool(live_script))
    page = environment().get_template("page.html.j2").render(
        version=VERSION,
        css=Markup(resource("style.css")),
        script=Markup(script),
        policy=Markup(policy),
        live=bool(live_script),
        view=view,
        strategy=strategy,
        facts=headline(view, strategy.cost) + strategy.facts(view),
        unfinished=strategy.unfinished(view) or unfinished_choice(view),
        sections=sections,
        charts=charts,
        cells=list(zip(cells, view.leading, strict=False)),
        figures=figures,
    )  # fmt: skip
    return Report(
        text.printable(page),
        policy,
        {f"{figure.name}.svg": figure.file_text for figure in figures},
        text.printable(trials_csv(view)),
    )


def _policy(script: str, asks: bool) -> str:
    """A policy that lets nothing but one script run, which may ask the page's own server or nobody."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    asked = " connect-src 'self';" if asks else ""
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';{asked} "
        "base-uri 'none'; form-action 'none'"
    )


def sections_of(view: RunView, files: Collection[str] = ()) -> list[Section]:
    """The page's sections, of any run and of its strategy; ``files`` are the names of those beside it."""
    own = page_of(view.record.strategy).sections(view)
    return sections_before(view) + own + sections_after(view, files)


def _draw_charts(view: RunView, sections: list[Section]) -> dict[str, DrawnChart]:
    with report_style():
        return {chart.name: draw_chart(chart, view) for section in sections for chart in section.charts}


def _draw_best_cells(view: RunView) -> list[SvgFigure]:
    """Drawings of the best cells, the best one first: ``cell_1``, ``cell_2``, …"""
    drawings = []
    with report_style():
        for rank, trial in enumerate(view.leading[:DRAWN_CELLS], start=1):
            size = text.plural(len(trial.cell), "block", "blocks")
            title = f"Cell ranked {rank}, {size}, {text.percent(trial.accuracy, 2)}: {trial.cell}"
            drawings.append(to_svg(draw_cell(trial.cell), f"cell_{rank}", title))
    return drawings


def environment(*rooms: str) -> Environment:
    """What renders templates of the report, and of other rooms by the names of their packages."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room) for room in (*rooms, "pnas_fast.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["known"] = text.is_known
    filters: dict[str, Callable[..., Any]] = {
        "correlation": text.correlation,
        "duration": text.duration,
        "embedded": _embedded,
        "grouped": text.count,  # Jinja has a filter of its own called count
        "gib": text.gib,
        "in_words": in_words,
        "inline": _inline,
        "magnitude": text.magnitude,
        "points": text.points,
        "percent": text.percent,
        "plural": text.plural,
        "setting": text.setting,
        "share": text.share,
        "written": _written,
    }
    environment.filters |= filters
    return environment


def _inline(figure: SvgFigure) -> Markup:
    return Markup(figure.inline)


def _embedded(values: Any) -> Markup:
    """JSON for a script element: no character in it ends one."""
    plain = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return Markup(plain.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"))


def _written(value: Any, kind: str) -> str:
    """A value of a `Column` as text; `page.js` has the same for rows that it adds."""
    if kind == "accuracy":
        fraction, error, failure = value
        return "failed" if failure is not None else text.accuracy(fraction, error)
    writers = {
        "count": text.count,
        "magnitude": text.magnitude,
        "duration": text.duration,
        "plain": text.plain,
    }
    return writers[kind](value)


def resource(name: str) -> str:
    """The text of one of the report's files, such as its style."""
    return files("pnas_fast.report").joinpath(name).read_text(encoding="utf-8")
