"""What a person sees while a data set is fetched and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pnas_fast.cli.commands import counting_bar, download_bar, one_line, say
from pnas_fast.data.watch import Watch


@contextmanager
def watching(console: Console, name: str) -> Iterator[Watch]:
    """Bars that appear where fetching or decoding a data set of that name takes time, and lines."""

    def told(text: str) -> None:
        say(console, one_line(ValueError(text)))

    with download_bar(console, name) as fetched, counting_bar(console, f"decoding {name}") as decoded:
        yield Watch(fetched, decoded, told)
