"""Data sets that were decoded once, as files in a folder of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pnas_fast.data.dataset import DataError, DataSet, channels_first, channels_last
from pnas_fast.files import replacing

FORMAT = 1
"""Of the files, and of whatever decides what is in them; another number is another file."""


def default_cache() -> Path:
    """The user's folder for what can be made again: ``$XDG_CACHE_HOME`` or ``~/.cache``, ours in it."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # As the specification says, a relative one does not count.
    base = Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache"
    return base / "pnas_fast" / "data"


def cached(path: Path, make: Callable[[], tuple[DataSet, list[str]]]) -> tuple[DataSet, list[str]]:
    """A data set, with lines about it for people, from a file; made and written where that is not there.

    Args:
        path: of the file, whose name says what is in it.
        make: makes both.

    Raises:
        DataError: the file cannot be written, or whatever ``make`` raises.
    """
    found = _read(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened first, so that a folder that takes no file is found before hours of decoding.
        with replacing(path) as temporary, temporary.open("wb") as file:
            data, lines = make()
            _write(file, data, lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"{path.parent}: decoded images cannot be written there ({error.strerror or error}), "
            "--cache names another folder for them"
        ) from error
    return data, lines


def _write(file: IO[bytes], data: DataSet, lines: list[str]) -> None:
    values = {item.name: getattr(data, item.name) for item in fields(data)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in values.items() if name not in tensors}
    header = {"format": FORMAT, "rest": rest, "tensors": list(tensors), "lines": lines}
    np.save(file, np.frombuffer(json.dumps(header).encode(), np.uint8))
    for tensor in tensors.values():
        np.save(file, channels_last(tensor).numpy())


def _read(path: Path) -> tuple[DataSet, list[str]] | None:
    """None where there is no such file, or it is damaged: it can be made again."""
    try:
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(np.load(file, allow_pickle=False).tobytes())
            if header["format"] != FORMAT:
                return None
            values = header["rest"]
            for name in header["tensors"]:
                values[name] = channels_first(torch.from_numpy(np.load(file, allow_pickle=False)))
        values["class_names"] = tuple(values["class_names"])
        return DataSet(**values), header["lines"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
