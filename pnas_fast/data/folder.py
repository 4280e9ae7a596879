"""Image files in folders: one for each class, perhaps below ``train``, ``val`` and ``test``.

They are decoded once, into a file of the cache, which later runs read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pnas_fast.data.array_files import place
from pnas_fast.data.cache import FORMAT, cached, default_cache
from pnas_fast.data.dataset import DataError, DataSet, Images
from pnas_fast.data.memory import Say, check_memory, silent
from pnas_fast.data.parts import Part, assemble
from pnas_fast.data.source import Description, Source, described
from pnas_fast.data.tree import ImageFile, Tree, read_tree

NAMED = 3
"""Files that a message about many of them names."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """How image files become a data set.

    Attributes:
        size: pixels of a side that images are resized to: the shorter side, then the square in the middle.
            0 is as they are, which all must share.
        skip_unreadable: whether files that are no images are left out and counted, not refused.
        cache: the folder of decoded images; empty is `default_cache`.
        loaders: processes that decode streamed images for each training; 0 is one for each core.
        say: told lines for people.
        progress: told (files done, in all) while files are decoded.
    """

    size: int = 0
    skip_unreadable: bool = False
    cache: str = ""
    loaders: int = 0
    say: Say = silent
    progress: Callable[[int, int], None] = silent


def cache_folder(pictures: Pictures) -> Path:
    """Where what was decoded is kept.

    Raises:
        DataError: ``pictures`` name no place.
    """
    return place("--cache", pictures.cache, "a folder") if pictures.cache else default_cache()


class Folder(Source):
    """A folder of images as a source.

    Args:
        argument: the folder.
        pictures: how its files become a data set.

    Raises:
        DataError: no folder is named.
    """

    FORM = "folder:DIR"

    def __init__(self, argument: str, pictures: Pictures) -> None:
        super().__init__(f"folder:{argument}")
        self._root = place(self.name, argument, self.FORM)
        self._pictures = pictures

    def describe(self) -> Description:
        """Of the data set, which is decoded for it where it was not: sizes and colours are in the files."""
        return described(self.open())

    def _read(self) -> DataSet:
        tree = read_tree(self._root)
        key = self._key(tree)

        def make() -> tuple[DataSet, list[str]]:
            made = self._decoded(tree)
            if self._key(read_tree(self._root)) != key:
                raise DataError(f"{self._root}: has changed while its images were read; start again")
            return made

        path = cache_folder(self._pictures) / f"{key}.images"
        if path.is_file():
            check_memory(self.name, path.stat().st_size)
        data, lines = cached(path, make)
        for line in lines:
            self._pictures.say(f"{self.name}: {line}")
        return replace(data, name=self.name)

    def _key(self, tree: Tree) -> str:
        """Digest of all that decides what is decoded: names, sizes and times of the files, and how."""
        root = self._root.resolve()
        above = len(str(self._root / "x")) - 1  # not relative_to, which takes longer than to ask for the time
        files = [
            [part, file.label, str(file.path)[above:], *_stamp(file.path)]
            for part, found in tree.parts.items()
            for file in found
        ]
        how = [FORMAT, version("pillow"), self._pictures.size, self._pictures.skip_unreadable, str(root)]
        return hashlib.blake2b(json.dumps([how, files]).encode(), digest_size=20).hexdigest()

    def _decoded(self, tree: Tree) -> tuple[DataSet, list[str]]:
        pictures = self._pictures
        files = [file for found in tree.parts.values() for file in found]
        from pnas_fast.data.decoding import decode  # here, since pillow is needed for pictures alone

        decoded = decode(
            self.name,
            [file.path for file in files],
            pictures.size,
            skip=pictures.skip_unreadable,
            say=pictures.say,
            progress=pictures.progress,
        )
        parts, start = {}, 0
        for part, found in tree.parts.items():
            end = start + len(found)
            kept = [number for number in range(start, end) if number not in decoded.refused]
            images = _kept(decoded.images[start:end], [number - start for number in kept])
            self._check_classes(tree, part, [files[number] for number in kept])
            parts[part] = Part(images, np.array([files[number].label for number in kept]))
            start = end
        data = assemble(self.name, parts, names=tree.classes)
        return data, skipped(decoded.refused.values(), len(files))

    def _check_classes(self, tree: Tree, part: str, kept: list[ImageFile]) -> None:
        """Raise `DataError` where leaving files out leaves a part or a class without images."""
        left = {file.label for file in kept}
        lost = [name for name in tree.classes if name not in left] if part == "train" else []
        if lost or not kept:
            what = f"class {lost[0]!r}" if lost else f"its {part} part"
            raise DataError(f"{self._root}: no file of {what} is an image")


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; a link's are those of what it leads to, if that is anything."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _kept(images: Images, places: list[int]) -> Images:
    """Those of the images, in their places' order, without a second copy of them all."""
    for to, where in enumerate(places):
        if to != where:
            images[to] = images[where]
    return images[: len(places)]


def skipped(refused: Iterable[str], files: int) -> list[str]:
    """A line about files that are left out, with what was said of the first; none where there are none."""
    told = list(refused)
    if not told:
        return []
    more = f"; and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
    return [f"{len(told):,} of {files:,} files are no images and left out: {'; '.join(told[:NAMED])}{more}"]
