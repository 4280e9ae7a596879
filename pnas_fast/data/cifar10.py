"""CIFAR-10 in its binary version: five training files and a test file of 10,000 records, no pickle.

See `pnas_fast.data.cifar_records` and https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pnas_fast.data.cifar_records import IMAGE_SHAPE, PIXEL_BYTES, check_range, read_records
from pnas_fast.data.dataset import (
    DataError,
    DataSet,
    Images,
    from_arrays,
    shuffled_places,
    usual_validation,
)
from pnas_fast.data.download import Archive, Progress, fetch
from pnas_fast.data.source import Description, Source

ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
SUBFOLDER = "cifar-10-batches-bin"
"""The archive's folder; the files may lie in it or directly in the user's folder."""

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"

CLASSES = 10
RECORDS = 10_000
"""Records in each file."""

RECORD_BYTES = 1 + PIXEL_BYTES

OTHER_VERSIONS = {
    "the Python version (pickles, which are never read)": ("cifar-10-batches-py", "data_batch_1"),
    "the Matlab version": ("cifar-10-batches-mat", "data_batch_1.mat"),
    "the Python version, still packed": (".", "cifar-10-python.tar.gz"),
    "the Matlab version, still packed": (".", "cifar-10-matlab.tar.gz"),
    "the binary version, still packed (unpack it)": (".", "cifar-10-binary.tar.gz"),
    "CIFAR-100": ("cifar-100-binary", "train.bin"),
    "CIFAR-100's Python version": ("cifar-100-python", "train"),
}
"""What else people have in hand: a folder within the user's own, or that one itself, and a file there."""


class Cifar10(Source):
    """CIFAR-10 in a folder as a source.

    Args:
        folder: where the files are, or are to be put.
        download: fetch the archive when a training file is missing.
        progress: called with (bytes done, bytes in all) while downloading.

    Raises:
        DataError: no folder is named.
    """

    FETCHED = f"CIFAR-10 ({ARCHIVE.size / 2**20:.0f} MiB)"

    def __init__(self, folder: str, download: bool = False, progress: Progress | None = None) -> None:
        if not folder:
            raise DataError("data 'cifar10:' names no folder, expected cifar10:DIR")
        super().__init__(f"cifar10:{folder}")
        self._folder, self._download, self._progress = folder, download, progress

    def describe(self) -> Description:
        """What is known without the files, which need not be there."""
        count = RECORDS * len(TRAIN_FILES)
        validation = usual_validation(count)
        tests = RECORDS if (_place(_root(self._folder)) / TEST_FILE).is_file() else 0
        return Description(CLASSES, IMAGE_SHAPE, count - validation, validation, tests)

    def _read(self) -> DataSet:
        return load(self._folder, download=self._download, progress=self._progress)


def load(folder: str, *, download: bool = False, progress: Progress | None = None) -> DataSet:
    """CIFAR-10, 45,000 images to train on and 5,000 to validate on, in a fixed random order.

    The 10,000 test images are its test part where their file is there.

    Args:
        folder: where the files are, or are to be put.
        download: fetch the archive (162 MiB) when a training file is missing.
        progress: called with (bytes done, bytes in all) while downloading.

    Raises:
        DataError: a file is missing, too short, too long, unreadable or holds a label out of range, or
            the download failed.
    """
    root = _root(folder)
    place = _place(root)
    if download and _missing(place):
        place = root / SUBFOLDER
        # The test file first: where all training files are, it is too.
        fetch(ARCHIVE, [f"{SUBFOLDER}/{name}" for name in (TEST_FILE, *TRAIN_FILES)], root, progress)
    _check_present(root, place)
    count = RECORDS * len(TRAIN_FILES)
    tests = RECORDS if (place / TEST_FILE).exists() else 0
    channels, height, width = IMAGE_SHAPE
    images = np.empty((count + tests, height, width, channels), np.uint8)
    labels = np.empty(count + tests, np.uint8)
    for name, places in zip(TRAIN_FILES, np.split(shuffled_places(count), len(TRAIN_FILES)), strict=True):
        images[places], labels[places] = _read(place / name)
    if tests:
        images[count:], labels[count:] = _read(place / TEST_FILE)
    return from_arrays(
        f"cifar10:{folder}",
        CLASSES,
        images,
        labels,
        validation=usual_validation(count),
        test=tests,
        crop_padding=4,
        flip=True,
    )


def _root(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # the home of a user whom nobody knows
        raise DataError(f"{folder}: is no folder ({error})") from error


def _place(root: Path) -> Path:
    """The folder that holds most of the training files, the user's own if neither is ahead."""
    return min(root, root / SUBFOLDER, key=lambda place: len(_missing(place)))


def _missing(place: Path) -> list[str]:
    return [name for name in TRAIN_FILES if not (place / name).is_file()]


def _check_present(root: Path, place: Path) -> None:
    missing = _missing(place)
    if len(missing) == len(TRAIN_FILES):
        found = _found(root) if root.is_dir() else "is no folder"
        raise DataError(
            f"{root}: {found}, expected {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} there or in its folder "
            f"{SUBFOLDER}, from {ARCHIVE.url} (--download fetches them, {ARCHIVE.size / 2**20:.0f} MiB)"
        )
    if missing:
        raise DataError(
            f"{place / missing[0]}: no such file, expected {RECORDS * RECORD_BYTES:,} bytes "
            "(--download fetches the whole set)"
        )


def _found(root: Path) -> str:
    """What a folder without the binary files holds."""
    for title, (folder, name) in OTHER_VERSIONS.items():
        if (root / name).is_file() or (root / folder / name).is_file():
            return f"holds {title}, not the CIFAR-10 binary version"
    return "holds none of the CIFAR-10 binary files"


def _read(path: Path) -> tuple[Images, npt.NDArray[np.uint8]]:
    """Images (records, H, W, C) and labels (records,) of one file."""
    images, labels = read_records(path, RECORDS, 1)
    check_range(path, labels[:, 0], CLASSES)
    return images, labels[:, 0]
