"""Figures as SVG text: the same run gives the same bytes, and figures can share one page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from pnas_fast.report.dots import with_trials
from pnas_fast.report.palette import INK, MUTED, RULE, SURFACE, THEME

# Text is measured in the font that Matplotlib brings along, wherever the report is written, and shown
# in the reader's own sans-serif font, which is rarely wider.
_MEASURED_FONT = "DejaVu Sans"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": _MEASURED_FONT,
    "font.size": 9,
    "text.color": INK,
    "figure.facecolor": SURFACE,
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@dataclass(frozen=True, slots=True)
class SvgFigure:
    """A figure as text. ``name`` is its file's stem and prefixes every id, ``title`` is its alt text.

    ``width`` is in points.
    """

    name: str
    title: str
    width: int
    svg: str

    @property
    def file_text(self) -> str:
        """The figure as an SVG file of its own."""
        return f'<?xml version="1.0" encoding="utf-8"?>\n{self.svg}'

    @property
    def inline(self) -> str:
        """The figure for the page: neutral colours become the page's CSS variables."""
        text = self.svg
        for colour, variable in THEME.items():
            text = text.replace(colour, variable)
        return text


@contextmanager
def report_style() -> Iterator[None]:
    """Matplotlib's own defaults and the report's style on top, whatever the user's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]  # all keys are rcParams
        yield


def to_svg(figure: Figure, name: str, title: str) -> SvgFigure:
    """Render a figure that was made under `report_style`, which must still be in force."""
    matplotlib.rcParams["svg.hashsalt"] = name
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = with_trials(svg[svg.index("<svg") :])
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(f"'{_MEASURED_FONT}'", "sans-serif")
    heading = f'<title id="{name}-title">{escape(title)}</title>'
    svg = re.sub(r"^<svg ([^>]*)>", rf'<svg role="img" aria-labelledby="{name}-title" \1>{heading}', svg)
    return SvgFigure(name, title, round(72 * figure.get_figwidth()), svg)
