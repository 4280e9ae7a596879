"""Values and texts as Python source, laid out as ruff lays it out."""

from __future__ import annotations

from collections.abc import Sequence

from pnas_fast.foreign import printable

WIDTH = 88
"""Characters of a line, ruff's own default."""

_INDENT = "    "
_BOTH_QUOTES = "'\""


def string(text: str) -> str:
    """A string literal: in double quotes, unless single ones need fewer backslashes."""
    # With both quotes in a text, Python writes it in single ones.
    body = repr(_BOTH_QUOTES + text)[len("'\\'\"") : -1]
    if text.count('"') > text.count("'"):
        return f"'{body}'"
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'


def in_docstring(text: str) -> str:
    """A stranger's text that cannot end a docstring, nor act on a terminal."""
    return printable(text).replace("\\", "\\\\").replace('"', "'")


def listed(start: str, items: Sequence[str], end: str, depth: int = 0) -> str:
    """``start``, items and ``end``, in one line where that fits, else with one item a line.

    Args:
        start: up to and with the opening bracket.
        items: between the brackets.
        end: from the closing bracket.
        depth: levels of indentation.
    """
    line = f"{_INDENT * depth}{start}{', '.join(items)}{end}"
    if len(line) <= WIDTH:
        return f"{line}\n"
    inner = "".join(f"{_INDENT * (depth + 1)}{item},\n" for item in items)
    return f"{_INDENT * depth}{start}\n{inner}{_INDENT * depth}{end}\n"
