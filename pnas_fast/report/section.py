"""What a page is made of: sections with charts, and what a strategy adds to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from pnas_fast.report.svg import SvgFigure, to_svg
from pnas_fast.report.view import RunView


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure of a run in two forms, ``draw(view, narrow)``, and what it shows in words."""

    name: str
    draw: Callable[[RunView, bool], Figure]
    title: str


@dataclass(frozen=True, slots=True)
class DrawnChart:
    """A chart for a page of full width, which is also a file of its own, and for a telephone."""

    wide: SvgFigure
    narrow: SvgFigure


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page: ``templates/NAME.html.j2`` with ``values``, where a chart is ``charts.NAME``."""

    name: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of the headline: its name, its value, and a remark that may be empty."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class StrategyPage:
    """What the page of a strategy's run has beyond that of any run.

    ``title`` names the strategy, ``explanation`` tells in a few sentences how it searches, ``cost`` is a
    remark on the search's cost. ``facts`` join the headline, ``sections`` follow the progress. ``unfinished``
    says in a sentence how far an unfinished run is; it is empty for a finished one and where the run does
    not tell.
    """

    title: str
    explanation: str = ""
    cost: str = "seen in training"
    facts: Callable[[RunView], list[Fact]] = lambda view: []
    sections: Callable[[RunView], list[Section]] = lambda view: []
    unfinished: Callable[[RunView], str] = lambda view: ""


def draw_chart(chart: Chart, view: RunView) -> DrawnChart:
    """Draw a chart; `report_style` must be in force."""
    wide = to_svg(chart.draw(view, False), chart.name, chart.title)
    return DrawnChart(wide, to_svg(chart.draw(view, True), f"{chart.name}_narrow", chart.title))
