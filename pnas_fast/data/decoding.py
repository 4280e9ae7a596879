"""Image files decoded by all cores into one array.

By processes, for threads gain nothing: of a small image half the work is Python's, and they wait for one
another at every change between the two. They are forked, as those of PyTorch's loaders are: to import what
they need would take as long as thousands of files.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn, TypeVar

import numpy as np
from PIL import Image

from pnas_fast.data.dataset import DataError, Images
from pnas_fast.data.memory import take_memory
from pnas_fast.foreign import silence
from pnas_fast.pictures import PictureError, own_pixels
from pnas_fast.threads import cores

CHUNK = 32
"""Files that a process takes at a time."""

FEWEST = 128
"""Files for which a process is worth its start."""

PIPE = 2**20
"""Bytes that a process may be ahead of the one that it sends to."""

Found = Images | PictureError

T = TypeVar("T")

_SHAPE = struct.Struct("<3I")
"""Before an image its height, width and channels; before a refusal 0, 0 and its bytes."""


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
    """Decode image files.

    Args:
        name: of the data set, for messages.
        paths: of the files.
        size: pixels of a side that they are resized to; 0 is as they are, which all must share.
        skip: whether files that are no images are left out; otherwise the first of them is an error.
        say: told once, before it is taken, how much memory the images take.
        progress: told (files done, in all).

    Raises:
        DataError: a file that is no image, images of several sizes, more than fits in memory, or a process
            that was killed or crashed.
    """
    buffer = _Buffer(name, len(paths), size, say)
    refused: dict[int, str] = {}
    with silence(), closing(in_order(paths, partial(own_pixels, size=size), str)) as decoded:
        Image.init()  # before there are processes that would all do it
        for place, (path, found) in enumerate(zip(paths, decoded, strict=True)):
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


def in_order(items: Sequence[T], decode: Callable[[T], Images], name: Callable[[T], str]) -> Generator[Found]:
    """What each item holds, decoded by as many processes as there are cores where items are many.

    Args:
        items: files, or what else ``decode`` takes.
        decode: gives an item's pixels, or raises a `PictureError`.
        name: of an item, for messages.

    Raises:
        DataError: a process was killed or crashed.
    """
    processes = min(cores(), len(items) // FEWEST) if sys.platform == "linux" else 1
    if processes < 2:
        for start in range(0, len(items), CHUNK):
            yield from [_found(item, decode) for item in items[start : start + CHUNK]]
        return
    with ExitStack() as stack:
        streams: list[IO[bytes]] = []
        for number in range(processes):
            starts = range(number * CHUNK, len(items), processes * CHUNK)
            own = [item for start in starts for item in items[start : start + CHUNK]]
            streams.append(stack.enter_context(_forked(own, decode)))
        for place, item in enumerate(items):
            found = _received(streams[place // CHUNK % processes])
            if found is None:
                raise DataError(
                    f"{name(item)}: the process that decoded it, or one of the next files, has ended"
                )
            yield found


def _found(item: T, decode: Callable[[T], Images]) -> Found:
    try:
        return decode(item)
    except PictureError as error:
        return error


@contextmanager
def _forked(items: Sequence[T], decode: Callable[[T], Images]) -> Iterator[IO[bytes]]:
    """A process that decodes items, and sends what they hold; it ends when nobody listens any more."""
    import fcntl  # there is one where processes are forked

    listen, tell = os.pipe()
    with suppress(OSError):  # more than root allows
        fcntl.fcntl(tell, fcntl.F_SETPIPE_SZ, PIPE)
    pid = os.fork()
    if pid == 0:
        os.close(listen)
        _send(tell, items, decode)
    os.close(tell)
    try:
        with open(listen, "rb", buffering=PIPE // 4) as stream:
            yield stream
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _send(pipe: int, items: Sequence[T], decode: Callable[[T], Images]) -> NoReturn:
    """Be a forked process. What the other one had in hand, threads and all, is left alone."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other one, which then ends this
        gc.freeze()  # or a collection would copy every page that it looks at
        with open(pipe, "wb", buffering=PIPE // 4) as stream:
            for item in items:
                stream.write(_packed(_found(item, decode)))
    finally:
        os._exit(0)


def _packed(found: Found) -> bytes:
    if isinstance(found, PictureError):
        message = str(found).encode("utf-8", "surrogateescape")
        return _SHAPE.pack(0, 0, len(message)) + message
    return _SHAPE.pack(*found.shape) + found.tobytes()


def _received(stream: IO[bytes]) -> Found | None:
    """None where the other end has gone."""
    header = stream.read(_SHAPE.size)
    height, width, last = _SHAPE.unpack(header) if len(header) == _SHAPE.size else (0, 0, 0)
    size = height * width * last if height else last
    content = stream.read(size)
    if not size or len(content) < size:
        return None
    if not height:
        return PictureError(content.decode("utf-8", "surrogateescape"))
    return np.frombuffer(content, np.uint8).reshape(height, width, last)
