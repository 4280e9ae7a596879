"""What a person sees while a data set is fetched and decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from pnas_fast.cli.commands import counting_bar, download_bar, one_line


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told while data are fetched and decoded.

    Attributes:
        fetched: called with (bytes done, bytes in all).
        decoded: called with (files done, in all).
        say: told lines for people.
    """

    fetched: Callable[[int, int], None]
    decoded: Callable[[int, int], None]
    say: Callable[[str], None]


@contextmanager
def watching(console: Console, name: str) -> Iterator[Watch]:
    """Bars that appear where fetching or decoding a data set of that name takes time, and lines."""

    def say(text: str) -> None:
        line = one_line(ValueError(text))
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    with download_bar(console, name) as fetched, counting_bar(console, f"decoding {name}") as decoded:
        yield Watch(fetched, decoded, say)
