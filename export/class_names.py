"""Names of classes."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.export.errors import ExportError


def read_class_names(path: Path, classes: int) -> list[str]:
    """A file's lines, one for each output in order.

    Raises:
        ExportError: no text, or another number of lines.
    """
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read as text ({error})") from error
    if len(names) != classes:
        raise ExportError(f"{path}: {len(names)} lines, expected {classes}, one for each output")
    return names
