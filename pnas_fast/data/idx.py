"""IDX files, as MNIST, Fashion-MNIST and EMNIST are published, gzipped or not.

A file is two zero bytes, the type of its values (8: unsigned bytes), the number of axes, their lengths as
32-bit numbers with the greatest byte first, then the values (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import numpy as np

from pnas_fast.data.array_files import ArrayFiles, StoredArray, place, with_words
from pnas_fast.data.dataset import DataError, Images
from pnas_fast.data.memory import Say, silent
from pnas_fast.foreign import reading

EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")

TRANSPOSED = "transposed"

KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
"""How names go on; a dot may stand before ``idx``, and ``.gz`` at the end."""

_BYTES = b"\0\0\x08"
_AXES = 3
"""At the most."""


class Idx(ArrayFiles):
    """The IDX files of a folder as a source.

    Args:
        argument: the folder, perhaps with ``#`` and, joined by commas, a split of EMNIST and ``transposed``,
            which turns every image's rows into columns: EMNIST's images lie on their side.
        say: told lines for people.

    Raises:
        DataError: no folder, or another word.
    """

    FORM = "idx:DIR[#WORDS]"

    def __init__(self, argument: str, say: Say = silent) -> None:
        super().__init__(f"idx:{argument}", say)
        folder, words = with_words(argument, (*EMNIST_SPLITS, TRANSPOSED))
        self._folder = place(self.name, folder, self.FORM)
        self._transposed = TRANSPOSED in words
        splits = [word for word in words if word != TRANSPOSED]
        if len(splits) > 1:
            raise DataError(
                f"data {self.name!r} names {' and '.join(splits)}, allowed is one split of EMNIST"
            )
        self._split = splits[0] if splits else ""

    def _arrays(self) -> Mapping[str, tuple[StoredArray, StoredArray]]:
        if not self._folder.is_dir():
            raise DataError(f"{self._folder}: is no folder, expected one of IDX files")
        prefix = self._prefix()
        test = "test" if prefix else "t10k"
        found = {}
        for part, word in (("train", "train"), ("test", test)):
            names = [f"{prefix}{word}-{kind}" for kind in KINDS]
            paths = [_find(self._folder, name) for name in names]
            if part == "train" or any(paths):
                for name, path in zip(names, paths, strict=True):
                    if path is None:
                        raise DataError(f"{self._folder}: holds no {name} (or {name}.gz)")
                images, labels = (_stored(path) for path in paths if path is not None)
                found[part] = self._upright(images), labels
        return found

    def _prefix(self) -> str:
        """How all names begin: with nothing, or with that of an EMNIST split."""
        if self._split:
            return f"emnist-{self._split}-"
        there = [
            prefix
            for prefix in ("", *(f"emnist-{split}-" for split in EMNIST_SPLITS))
            if _find(self._folder, f"{prefix}train-{KINDS[0]}") is not None
        ]
        if len(there) > 1:
            splits = [prefix.split("-")[1] for prefix in there if prefix]
            raise DataError(
                f"{self._folder}: holds several sets ({' '.join(splits)}), allowed is one: say which, "
                f"as in {self.name}#{splits[0]}"
            )
        return there[0] if there else ""

    def _upright(self, images: StoredArray) -> StoredArray:
        if not self._transposed or len(images.shape) != 3:
            return images
        count, height, width = images.shape
        return images._replace(shape=(count, width, height), read=lambda: images.read().transpose(0, 2, 1))


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name, plain if it is there, else gzipped."""
    spellings = [name, name.replace("-idx", ".idx")]
    paths = [folder / (spelling + end) for end in ("", ".gz") for spelling in spellings]
    return next((path for path in paths if path.exists()), None)


def _stored(path: Path) -> StoredArray:
    title = str(path)
    with _reading(path), _open(path) as file:
        shape = _header(title, file)
    return StoredArray(title, shape, np.dtype(np.uint8), _reader(path, shape))


def _reader(path: Path, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        count = math.prod(shape)
        with _reading(path), _open(path) as file:
            if _header(str(path), file) != shape:
                raise DataError(f"{path}: has changed while it was read")
            values: Images = np.empty(count, np.uint8)
            size = _fill(file, values)
            if size < count or file.read(1):
                more = "more" if size == count else f"{size:,}"
                raise DataError(f"{path}: holds {more} bytes of values, its header says {count:,}")
        return values.reshape(shape)

    return read


def _fill(file: IO[bytes], values: Images) -> int:
    """Read as many bytes as there are, or are wanted; how many that was."""
    view, size = values.data, 0
    while size < len(view):
        chunk = file.read(min(2**20, len(view) - size))
        if not chunk:
            break
        view[size : size + len(chunk)] = chunk
        size += len(chunk)
    return size


def _header(title: str, file: IO[bytes]) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != _BYTES or not 1 <= magic[3] <= _AXES:
        raise DataError(
            f"{title}: begins with {magic.hex(' ') or 'nothing'}, expected 00 00 08 (bytes) and 01 to "
            f"0{_AXES} (axes)"
        )
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(f"{title}: ends inside its header")
    return tuple(map(int, np.frombuffer(lengths, ">u4")))


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, DataError, "cannot be read as an IDX file")
