"""What command lines share: refusals in one line, and whole numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from pnas_fast.version import VERSION

LARGEST = 1_000_000
"""Of whole numbers that nothing else limits."""

LARGEST_BATCH = 4096
"""Of images at a time."""

_SHOWN = 40
"""Characters of what was given in a message."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and which version it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        version = f"pnas_fast {VERSION}"
        self.add_argument("--version", action="version", version=version, help="say which version this is")

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    """A whole number from 1 to `LARGEST`."""
    return _whole(text, LARGEST)


def up_to(most: int, least: int = 1) -> Callable[[str], int]:
    """Reads whole numbers from ``least`` to ``most``."""
    return lambda text: _whole(text, most, least)


def _whole(text: str, most: int, least: int = 1) -> int:
    # Of a bounded length, or reading the digits would take time of its own.
    digits = text.isascii() and text.isdigit() and len(text.lstrip("0")) <= len(str(most))
    if not digits or not least <= int(text.lstrip("0") or "0") <= most:
        shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
        raise argparse.ArgumentTypeError(f"{shown}, allowed is a whole number from {least} to {most:,}")
    return int(text.lstrip("0") or "0")
