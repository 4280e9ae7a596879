"""What command lines share: refusals in one line, and whole numbers."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from pnas_fast.version import VERSION


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
    """A whole number of 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is a whole number of 1 or more")
    return int(text)
