"""CIFAR-100 in its binary version: 50,000 images to train on and 10,000 to test on, no pickle.

A record is the number of one of 20 superclasses, of one of 100 classes, then 3,072 pixel bytes as in CIFAR-10
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pnas_fast.data.array_files import place, with_words
from pnas_fast.data.cifar_records import IMAGE_SHAPE, check_range, read_records
from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.download import Archive, Progress, fetch
from pnas_fast.data.parts import Part, assemble, split_off
from pnas_fast.data.source import Description, Source

ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    size=168_513_733,
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)
SUBFOLDER = "cifar-100-binary"
"""The archive's folder; the files may lie in it or directly in the user's folder."""

TRAIN_FILE, TEST_FILE = "train.bin", "test.bin"
TRAIN_RECORDS, TEST_RECORDS = 50_000, 10_000

LABELS = 2
"""Bytes of a record."""


class _Level(NamedTuple):
    """One of a record's labels: its byte, how many there are, and the file of their names."""

    byte: int
    classes: int
    names: str


COARSE, FINE = "coarse", "fine"
LEVELS = {COARSE: _Level(0, 20, "coarse_label_names.txt"), FINE: _Level(1, 100, "fine_label_names.txt")}


class Cifar100(Source):
    """CIFAR-100 in a folder as a source.

    Args:
        argument: the folder, perhaps with ``#coarse`` for the 20 superclasses.
        download: fetch the archive where its file of training images is not there.
        progress: called with (bytes done, bytes in all) while downloading.

    Raises:
        DataError: no folder, or another word.
    """

    FORM = "cifar100:DIR[#coarse]"
    FETCHED = f"CIFAR-100 ({ARCHIVE.size / 2**20:.0f} MiB)"

    def __init__(self, argument: str, download: bool = False, progress: Progress | None = None) -> None:
        super().__init__(f"cifar100:{argument}")
        self._download, self._progress = download, progress
        folder, words = with_words(argument, (COARSE, FINE))
        self._root = place(self.name, folder, self.FORM)
        if len(set(words)) > 1:
            raise DataError(f"data {self.name!r} names {' and '.join(words)}, allowed is one of them")
        self._level = LEVELS[words[0] if words else FINE]

    def describe(self) -> Description:
        """What is known without the files, which need not be there."""
        held = split_off(TRAIN_RECORDS)
        folder = self._folder()
        tests = TEST_RECORDS if (folder / TEST_FILE).is_file() else 0
        return Description(
            self._level.classes, IMAGE_SHAPE, TRAIN_RECORDS - held, held, tests, self._names(folder)
        )

    def _folder(self) -> Path:
        inner = self._root / SUBFOLDER
        return inner if (inner / TRAIN_FILE).is_file() else self._root

    def _names(self, folder: Path) -> tuple[str, ...]:
        """Of the classes: the archive's, or numbers where its files of names are not there."""
        try:
            names = (folder / self._level.names).read_text("utf-8").split()
        except (OSError, ValueError):
            names = []
        whole = len(names) == len(set(names)) == self._level.classes
        return tuple(names) if whole else tuple(map(str, range(self._level.classes)))

    def _read(self) -> DataSet:
        if self._download and not (self._folder() / TRAIN_FILE).exists():
            # The training file last: where it is, all others are.
            names = (*(level.names for level in LEVELS.values()), TEST_FILE, TRAIN_FILE)
            fetch(ARCHIVE, [f"{SUBFOLDER}/{name}" for name in names], self._root, self._progress)
        folder = self._folder()
        if not (folder / TRAIN_FILE).exists():
            raise DataError(
                f"{self._root}: holds no {TRAIN_FILE}, expected CIFAR-100's binary version there or in its "
                f"folder {SUBFOLDER}, from {ARCHIVE.url} (--download fetches it, "
                f"{ARCHIVE.size / 2**20:.0f} MiB)"
            )
        names = self._names(folder)
        parts = {"train": self._part(folder / TRAIN_FILE, TRAIN_RECORDS, names)}
        if (folder / TEST_FILE).exists():
            parts["test"] = self._part(folder / TEST_FILE, TEST_RECORDS, names)
        return assemble(self.name, parts, names=names, crop_padding=4, flip=True)

    def _part(self, path: Path, count: int, names: tuple[str, ...]) -> Part:
        images, both = read_records(path, count, LABELS)
        labels = both[:, self._level.byte]
        check_range(path, labels, self._level.classes)
        return Part(np.ascontiguousarray(images), np.array(names)[labels])
