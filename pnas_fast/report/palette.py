"""The colours of the report, and how each operation is written and coloured.

Colours that carry data are mid-tones: told apart with a colour-vision deficiency, and readable on a
light and on a dark page. Neutral colours are the light page's; the page itself replaces each of them
by its CSS variable, so that inline figures follow the reader's light or dark setting.
"""

from __future__ import annotations

from dataclasses import dataclass

from pnas_fast.space import OPERATION_TABLE

INK = "#1d2733"
MUTED = "#66717f"
RULE = "#d8dde3"
SURFACE = "#fffffe"
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", SURFACE: "var(--surface)"}
"""Neutral colours of the figures and the page's CSS variable for each."""

BOX_INK = "#15202b"
"""Text inside an operation's box, whose fill is light on every page."""

INPUT_COLOURS = ("#a07c48", "#4f8496")
"""Edges from H[c-2] and from H[c-1] in the drawing of a cell."""

FAILED = "#c8553d"

TIME_COLOURS = {
    "training": "#7fb0dc",
    "evaluating": "#5cc0a8",
    "building": "#d9c46a",
    "waiting": "#b9bec6",
    "surrogate": "#d8a0cc",
}
"""What a worker's time goes to: tints, for they hold text."""

_LEVELS = ("#4587c9", "#d9772b", "#2a9d78", "#b565a7", "#b8921f")
_LEVEL_MARKERS = ("o", "s", "^", "D", "P")


def level_colour(level: int) -> str:
    """The colour of a level, counted from 1."""
    return _LEVELS[(level - 1) % len(_LEVELS)]


def level_marker(level: int) -> str:
    """The marker of a level, counted from 1, where position does not already tell it."""
    return _LEVEL_MARKERS[(level - 1) % len(_LEVEL_MARKERS)]


@dataclass(frozen=True, slots=True)
class OperationStyle:
    """An operation in figures: the two lines of its box (the second may be empty) and its colours.

    ``label`` is the operation on one line.
    ``fill`` is a tint for boxes that hold text, ``colour`` its strong form for outlines and bars.
    """

    name: str
    size: str
    label: str
    fill: str
    colour: str


_OPERATION_COLOURS = {
    "pale blue": ("#dcebf9", "#7fb0dc"),
    "blue": ("#b9d8f2", "#4a8cc6"),
    "deep blue": ("#8fbfe8", "#2d6aa3"),
    "green": ("#bfe5da", "#2a9d88"),
    "grey": ("#e9e9e5", "#8b8b86"),
    "yellow": ("#fae7b0", "#c99b16"),
    "orange": ("#f8cba9", "#d9702e"),
    "violet": ("#e2d3f0", "#8a63b0"),
}
"""Fill and colour of each colour key of `pnas_fast.space.OPERATION_TABLE`."""

OPERATION_STYLES: dict[str, OperationStyle] = {
    row.name: OperationStyle(row.kind, row.size, row.label, *_OPERATION_COLOURS[row.colour])
    for row in OPERATION_TABLE
}
