"""Names of classes."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.export.errors import ExportError
from pnas_fast.foreign import reading

LONGEST_FILE = 2**24
"""Bytes of a file of names."""


def read_class_names(path: Path, classes: int) -> list[str]:
    """A file's lines, one for each output in order; a byte-order mark is no part of the first.

    Raises:
        ExportError: no text, or another number of lines.
    """
    with reading(path, ExportError, "cannot be read as text"):
        size = path.stat().st_size
        if size > LONGEST_FILE:
            raise ExportError(f"{path}: {size:,} bytes, allowed are names of {LONGEST_FILE:,} in all")
        names = path.read_text(encoding="utf-8-sig").splitlines()
    if len(names) != classes:
        raise ExportError(f"{path}: {len(names)} lines, expected {classes}, one for each output")
    return names
