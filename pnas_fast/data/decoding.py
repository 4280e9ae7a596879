"""Image files decoded by all cores into one array."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pnas_fast.data.dataset import DataError, Images
from pnas_fast.data.memory import take_memory
from pnas_fast.foreign import silence
from pnas_fast.pictures import PictureError, own_pixels
from pnas_fast.threads import cores

CHUNK = 32
"""Files that a thread takes at a time."""

_Decoded = list[Images | PictureError]


class Decoded(NamedTuple):
    """Pixels of image files.

    Attributes:
        images: uint8 (n, H, W, C) of all files, those of `refused` being black; C is 1 where all are grey.
        refused: what was said of files that are no images, by their places.
    """

    images: Images
    refused: dict[int, str]


def decode(
    name: str,
    paths: Sequence[Path],
    size: int,
    *,
    skip: bool,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> Decoded:
    """Decode image files, in threads: what decodes lets others run.

    Args:
        name: of the data set, for messages.
        paths: of the files.
        size: pixels of a side that they are resized to; 0 is as they are, which all must share.
        skip: whether files that are no images are left out; otherwise the first of them is an error.
        say: told once, before it is taken, how much memory the images take.
        progress: told (files done, in all).

    Raises:
        DataError: a file that is no image, images of several sizes, or more than fits in memory.
    """
    buffer = _Buffer(name, len(paths), size, say)
    refused: dict[int, str] = {}
    with silence():
        Image.init()  # before there are threads that would all do it
        for place, (path, found) in enumerate(zip(paths, _in_order(paths, size), strict=True)):
            if not isinstance(found, PictureError):
                buffer.put(place, path, found)
            elif skip:
                refused[place] = str(found)
            else:
                raise DataError(f"{found}; --skip-unreadable leaves such files out") from found
            if place % CHUNK == 0:
                progress(place, len(paths))
    progress(len(paths), len(paths))
    if buffer.images is None:
        raise DataError(f"{name}: none of {len(paths):,} files is an image: {next(iter(refused.values()))}")
    return Decoded(buffer.images, refused)


class _Buffer:
    """The array that images are put into, which becomes one of colours with the first that has any."""

    def __init__(self, name: str, count: int, size: int, say: Callable[[str], None]) -> None:
        self._name, self._count, self._size, self._say = name, count, size, say
        self._first: Path | None = None
        self.images: Images | None = None

    def put(self, place: int, path: Path, pixels: Images) -> None:
        height, width, channels = pixels.shape
        if self.images is None:
            self.images = self._new(height, width, channels)
            self._first = path
        known = self.images.shape
        if (height, width) != known[1:3]:
            raise DataError(
                f"{path}: {width}x{height} pixels, {self._first} has {known[2]}x{known[1]}: "
                "--image-size makes all images one size"
            )
        if channels > known[3]:
            grey, self.images = self.images, self._new(height, width, channels)
            self.images[:place] = grey[:place]
        self.images[place] = pixels

    def _new(self, height: int, width: int, channels: int) -> Images:
        shape = self._count, height, width, channels
        take_memory(self._name, *shape, self._say)
        return np.zeros(shape, np.uint8)


def _in_order(paths: Sequence[Path], size: int) -> Iterator[Images | PictureError]:
    """What each file holds; threads are at work on no more than a few of the next."""
    threads = cores()
    waiting: deque[Future[_Decoded]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for start in range(0, len(paths), CHUNK):
            waiting.append(pool.submit(_chunk, paths[start : start + CHUNK], size))
            if len(waiting) > 3 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunk(paths: Sequence[Path], size: int) -> _Decoded:
    found: _Decoded = []
    for path in paths:
        try:
            found.append(own_pixels(path, size))
        except PictureError as error:
            found.append(error)
    return found
