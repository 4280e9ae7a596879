"""Arrays in NumPy's files: one ``.npz``, or a folder of ``.npy``.

Names are those that people use: MedMNIST's ``train_images``, ``train_labels``, ``val_images``, …, Keras's
``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``images`` and ``labels`` alone. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np

from pnas_fast.data.array_files import ArrayFiles, StoredArray, place
from pnas_fast.data.dataset import DataError
from pnas_fast.data.memory import Say, silent
from pnas_fast.data.parts import PARTS
from pnas_fast.foreign import reading

LAYOUTS: tuple[dict[str, tuple[str, str]], ...] = (
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {"train": ("images", "labels")},
)
"""Names of the images and labels of each part, letters large or small."""

SUFFIX = ".npy"


class _NumpyFiles(ArrayFiles):
    """Arrays by their names."""

    FORM: str

    def __init__(self, argument: str, say: Say = silent) -> None:
        super().__init__(f"{self.FORM.partition(':')[0]}:{argument}", say)
        self._place = place(self.name, argument, self.FORM)

    def _names(self) -> list[str]:
        """Of all arrays that are there."""
        raise NotImplementedError

    def _open(self, name: str) -> StoredArray:
        """One of them."""
        raise NotImplementedError

    def _arrays(self) -> Mapping[str, tuple[StoredArray, StoredArray]]:
        chosen = _chosen(str(self._place), self._names())
        return {part: (self._open(images), self._open(labels)) for part, (images, labels) in chosen.items()}


class Npz(_NumpyFiles):
    """The arrays of one ``.npz`` file as a source.

    Args:
        argument: the file.
        say: told lines for people.

    Raises:
        DataError: none is named.
    """

    FORM = "npz:FILE"

    def _names(self) -> list[str]:
        with _reading_npz(self._place), zipfile.ZipFile(self._place) as file:
            return [name.removesuffix(SUFFIX) for name in file.namelist() if name.endswith(SUFFIX)]

    def _open(self, name: str) -> StoredArray:
        title, path = f"{self._place}: {name}", self._place

        def read() -> np.ndarray:
            with _reading_npz(path), np.load(path, allow_pickle=False) as file:
                values: np.ndarray = file[name]
                return values

        with (
            _reading_npz(path),
            zipfile.ZipFile(path) as file,
            file.open(name + SUFFIX) as content,
        ):
            return StoredArray(title, *_header(title, content), read)


class Npy(_NumpyFiles):
    """The ``.npy`` files of a folder as a source.

    Args:
        argument: the folder.
        say: told lines for people.

    Raises:
        DataError: none is named.
    """

    FORM = "npy:DIR"

    def _names(self) -> list[str]:
        try:
            return sorted(path.stem for path in self._place.iterdir() if path.suffix == SUFFIX)
        except OSError as error:
            raise DataError(f"{self._place}: is no folder that can be read ({error.strerror})") from error

    def _open(self, name: str) -> StoredArray:
        path = self._place / (name + SUFFIX)

        def read() -> np.ndarray:
            with _reading_npy(path):
                values: np.ndarray = np.load(path, allow_pickle=False)
                return values

        with _reading_npy(path), path.open("rb") as content:
            return StoredArray(str(path), *_header(str(path), content), read)


def _reading_npz(path: Path) -> AbstractContextManager[None]:
    return reading(path, DataError, "cannot be read as a .npz file of arrays")


def _reading_npy(path: Path) -> AbstractContextManager[None]:
    return reading(path, DataError, "cannot be read as a .npy file of an array")


def _header(title: str, content: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without its values."""
    version = np.lib.format.read_magic(content)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise DataError(f"{title}: an array in version {version} of NumPy's format, allowed are 1.0 and 2.0")
    shape, _, dtype = readers[version](content)
    if dtype.hasobject:
        raise DataError(f"{title}: Python objects, which are never read, allowed are numbers and text")
    return shape, dtype


def _chosen(title: str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The arrays of each part, by the names that they have in the file."""
    given = {name.casefold(): name for name in sorted(names)}
    layouts = [layout for layout in LAYOUTS if any(set(pair) & set(given) for pair in layout.values())]
    known = ", ".join("/".join(layout["train"]) for layout in LAYOUTS)
    shown = " ".join(given.values()) or "nothing"
    if len(layouts) != 1 or not set(layouts[0]["train"]) & set(given):
        raise DataError(
            f"{title}: holds {shown}, allowed is one of {known} (with val and test parts named alike)"
        )
    chosen = {}
    for part in PARTS:
        pair = layouts[0].get(part, ())
        missing = [name for name in pair if name not in given]
        if len(missing) == 1:
            raise DataError(f"{title}: holds no {missing[0]}, only {shown}")
        if pair and not missing:
            images, labels = pair
            chosen[part] = given[images], given[labels]
    return chosen
