"""Files that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FILE, _FOLDER = ".tmp", ".dir"
"""How names of temporary files and folders end."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to, and rename it to ``path`` on success.

    A reader, or a process that goes on after a crash, sees the old file or the new one. What processes of
    this machine left that were killed while they wrote the same file is removed.
    """
    _sweep(path)
    temporary = _temporary(path, os.getpid())
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path`` for what the making of that file needs, and remove it afterwards.

    As with `replacing`, what killed processes left is removed.
    """
    _sweep(path)
    folder = _temporary(path, os.getpid()).with_suffix(_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(path: Path, process: int) -> Path:
    return path.with_name(f".{path.name}.{process}{_FILE}")


def _sweep(path: Path) -> None:
    """Remove what processes that live no more left of writing a file."""
    with suppress(OSError):  # it is a kindness: whoever may not do it can still write
        for left in path.parent.iterdir():
            process = left.stem.removeprefix(f".{path.name}.")
            if process == left.stem or not (process.isascii() and process.isdigit()) or _lives(int(process)):
                continue
            if left.suffix == _FILE:
                left.unlink(missing_ok=True)
            elif left.suffix == _FOLDER:
                shutil.rmtree(left, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file, or none of it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
