"""One copy of a data set for all workers of a machine: files that each of them maps into its memory.

On a GPU every process has a copy of its own besides. CIFAR-10 is 154 MB of uint8, less than what CUDA
itself takes for a process, so passing handles of device memory around would save little.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnas_fast.data import DataSet
from pnas_fast.data.dataset import channels_first, channels_last
from pnas_fast.data.streamed import Streamed
from pnas_fast.files import replacing, write_text

_FOLDER = ".data"
_REST = "dataset.json"
_STREAMED = "streamed"


@contextmanager
def shared_data(data: DataSet, folder: Path) -> Iterator[Path]:
    """Lay a data set, in the CPU's memory, out in a run's folder for as long as its workers live.

    Yields:
        What `read_data` takes.
    """
    place = folder / _FOLDER
    write_data(data, place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_data(data: DataSet, place: Path) -> None:
    """Lay a data set out in a folder, for `read_data`; `has_data` says when it is whole."""
    place.mkdir(exist_ok=True)
    rest: dict[str, Any] = {_STREAMED: {}}
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, Streamed):
            rest[_STREAMED][item.name] = value.save(place / item.name)
        elif isinstance(value, Tensor):
            with replacing(place / f"{item.name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, channels_last(value).contiguous().numpy(), allow_pickle=False)
        else:
            rest[item.name] = value
    write_text(place / _REST, json.dumps(rest))


def has_data(place: Path) -> bool:
    """Whether a whole data set is laid out in a folder."""
    return (place / _REST).is_file()


def pack(data: DataSet) -> dict[str, np.ndarray]:
    """The files that `write_data` writes, as bytes by their names; of images that are in memory."""
    with tempfile.TemporaryDirectory(prefix="pnas_fast-") as scratch:
        place = Path(scratch, _FOLDER)
        write_data(data, place)
        return {file.name: np.fromfile(file, np.uint8) for file in place.iterdir()}


def unpack(files: Mapping[str, np.ndarray], place: Path) -> None:
    """Lay a data set out of which `pack` has made files."""
    place.mkdir(exist_ok=True)
    for name in sorted(files, key=lambda name: name == _REST):  # that last: then it is whole
        with replacing(place / name) as temporary:
            files[name].tofile(temporary)


def read_data(place: Path) -> DataSet:
    """The data set that was laid out there; its pages are in memory once for all who read it."""
    values: dict[str, Any] = json.loads((place / _REST).read_text(encoding="utf-8"))
    streamed = values.pop(_STREAMED)
    values.update({name: Streamed.load(place / name, rest) for name, rest in streamed.items()})
    for item in fields(DataSet):
        if item.name not in values:
            # Copy on write, since torch wants memory that it may write to; nobody does.
            array = np.load(place / f"{item.name}.npy", mmap_mode="c", allow_pickle=False)
            values[item.name] = channels_first(torch.from_numpy(array))
    values["class_names"] = tuple(values["class_names"])  # JSON knows lists alone
    return DataSet(**values)
