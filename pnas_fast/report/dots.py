"""Dots that know their trials: one small path for all children of a look, and their numbers beside it.

Matplotlib writes an element a dot. Ten thousand of them make a page slow, and none says whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pnas_fast.protocols import Trial

_MARK = "trials "
_MARKER = re.compile(r'<path id="(m\w+)" d="([^"]*)"')
_GROUP = re.compile(
    rf'<g id="{_MARK}([\d ]+)">\s*(<defs>.*?</defs>)?\s*<g([^>]*)>(.*?)</g>\s*</g>', re.DOTALL
)
_USE = re.compile(r'<use xlink:href="#(m\w+)" x="([^"]+)" y="([^"]+)" style="([^"]*)"/>')
_FILL = re.compile(r"fill: ([^;]+)(?:; fill-opacity: ([^;]+))?")


def plot_dots(
    axes: Axes, trials: Sequence[Trial], x: ArrayLike, y: ArrayLike, marker: str, **style: Any
) -> None:
    """Plot trials as markers (circles, polygons or crosses), in such a way that `with_trials` finds them."""
    if trials:
        numbers = " ".join(str(trial.number) for trial in trials)
        axes.plot(x, y, marker=marker, linestyle="none", gid=_MARK + numbers, **style)


def with_trials(svg: str) -> str:
    """A figure's SVG with each series of `plot_dots` as one path of class ``dots``.

    Its ``data-trials`` holds the trials' numbers. In its ``d`` every dot begins with an absolute ``M x y``,
    its place, and goes on with relative moves: the n-th ``M`` is the n-th trial.
    """
    markers = dict(_MARKER.findall(svg))

    def rewritten(found: re.Match[str]) -> str:
        numbers, definitions, attributes, content = found.groups()
        uses = _USE.findall(content)
        if len(uses) != len(numbers.split()):  # one lies outside of the figure: no telling which
            return found[0].replace(f' id="{_MARK}{numbers}"', "")
        name, _, _, style = uses[0]
        outline, style = _outline(markers[name], style)
        places = "".join(f"M{_short(x)} {_short(y)}{outline}" for _, x, y, _ in uses)
        path = f'<path class="dots" data-trials="{numbers}" d="{places}" style="{style}"/>'
        return f"<g{attributes}>{definitions or ''}{path}</g>"

    return _GROUP.sub(rewritten, svg)


def _outline(marker: str, style: str) -> tuple[str, str]:
    """A marker's path in relative moves, and its style: a filled circle is the round end of no line."""
    points = [(float(x), float(y)) for x, y in re.findall(r"(\S+) (\S+) *(?=\n|$)", marker)]
    if "C" in marker:
        radius = max(x for x, _ in points)
        colour, opacity = _FILL.findall(style)[0] if "stroke" not in style else ("", "")
        if colour:
            shade = f"; stroke-opacity: {opacity}" if opacity else ""
            return (
                "h0",
                f"fill: none; stroke: {colour}; stroke-width: {2 * radius:g}; stroke-linecap: round{shade}",
            )
        arc = f"a{radius:g} {radius:g} 0 1 0 "
        return f"m{-radius:g} 0{arc}{2 * radius:g} 0{arc}{-2 * radius:g} 0", style
    steps, (last_x, last_y) = [], (0.0, 0.0)
    for command, (x, y) in zip(re.findall("[ML]", marker), points, strict=True):
        steps.append(f"{command.lower()}{x - last_x:g} {y - last_y:g}")
        last_x, last_y = x, y
    return "".join(steps) + ("z" if "z" in marker else ""), style


def _short(number: str) -> str:
    return f"{float(number):.2f}".rstrip("0").rstrip(".")
