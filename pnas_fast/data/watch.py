"""Who is told while data are fetched and decoded: the value alone, which needs no terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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
