"""Folders of images, as those of `pnas_fast.data.folder`, that are decoded whenever they are looked at."""

from __future__ import annotations

import os

import numpy as np

from pnas_fast.data.array_files import place
from pnas_fast.data.dataset import DataError
from pnas_fast.data.folder import Pictures
from pnas_fast.data.stream import Listing, Records, StreamSource, word
from pnas_fast.data.streamed import FileNames
from pnas_fast.data.tree import read_tree


class ImageFolder(StreamSource):
    """A folder of images as a source of streams.

    Args:
        argument: the folder.
        pictures: how its files become a data set.

    Raises:
        DataError: no folder is named.
    """

    FORM = "imagefolder:DIR"

    def __init__(self, argument: str, pictures: Pictures) -> None:
        super().__init__(f"imagefolder:{argument}", pictures)
        self._root = place(self.name, argument, self.FORM)

    def _list(self) -> Listing:
        tree = read_tree(self._root)
        files = [file for found in tree.parts.values() for file in found]
        rows, times = np.zeros((len(files), 4), np.int64), np.zeros(len(files), np.int64)
        for number, file in enumerate(files):
            try:
                status = os.stat(file.path)
            except OSError as error:
                raise DataError(f"{file.path}: cannot be read ({error.strerror or error})") from error
            name = file.path.relative_to(self._root).as_posix()
            rows[number] = number, 0, -1, word(name, status.st_size)
            times[number] = status.st_mtime_ns
        parts, start = {}, 0
        for part, found in tree.parts.items():
            labels = np.array([file.label for file in found])
            parts[part] = Records(rows[start : start + len(found)], labels)
            start += len(found)
        names = FileNames.of(file.path.absolute() for file in files)
        return Listing(names, tree.classes, parts, times.tobytes() + rows.tobytes())
