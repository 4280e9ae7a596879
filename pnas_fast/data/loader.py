"""Streamed images on their device, a batch at a time, decoded beforehand by processes of PyTorch's loader."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pnas_fast.data.dataset import DataError
from pnas_fast.data.decoding import CHUNK, in_order
from pnas_fast.data.memory import check_memory
from pnas_fast.data.streamed import Streamed
from pnas_fast.foreign import silence
from pnas_fast.pictures import PictureError
from pnas_fast.threads import cores, granted

Places = npt.NDArray[np.int64]

AHEAD = 2
"""Batches that are decoded before they are asked for, at least."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Staged:
    """Memory on the device that holds one batch of streamed images, and stays where it is.

    So a step that reads it can be a CUDA graph or a recording; `feed` has the next batch put there between
    two steps. Which batch that is depends on what `begin` was told alone, not on how the processes that
    decode take turns.

    Args:
        images: streamed ones.
        batch: of how many.

    Attributes:
        images: uint8 (batch, C, H, W), channels_last.
    """

    def __init__(self, images: Streamed, batch: int) -> None:
        self._streamed, self._batch = images, batch
        self.images = torch.zeros((batch, *images.image_shape), dtype=torch.uint8, device=images.device)
        self.images = self.images.contiguous(memory_format=torch.channels_last)
        self._numbers = torch.arange(batch, dtype=torch.int32, device=images.device)[:, None]
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None
        self._chunks: Iterator[Tensor | str] | None = None

    def begin(self, batches: Callable[[], Iterable[Places]]) -> None:
        """Say which images the next batches show: of each the places, no more than a batch has.

        Nothing is decoded until the first of them is asked for.
        """
        self._order.batches = batches
        self._chunks = None

    def feed(self) -> None:
        """Put the next batch into the memory; where it has fewer images, the last of them is repeated.

        Raises:
            DataError: a file that is no image, or of another shape; its name is said.
        """
        if self._chunks is None:
            self._chunks = self._started()
        count, done = self._order.counts.popleft(), 0
        while done < count:
            chunk = next(self._chunks)
            if isinstance(chunk, str):
                raise DataError(f"{chunk}; --skip-unreadable leaves files out that are no images")
            to = self.images[done : done + len(chunk)]
            to.copy_(chunk.permute(0, 3, 1, 2), non_blocking=True)
            done += len(chunk)
        self.images[count:] = self.images[count - 1]

    def rows(self, rows: Tensor) -> Tensor:
        """A plan's rows of this batch, by the images' numbers in the memory: int32 (batch, COLUMNS)."""
        return torch.cat([self._numbers, rows[:, 1:]], dim=1)

    def close(self) -> None:
        """End the processes."""
        self._chunks = self._loader = None

    def _started(self) -> Iterator[Tensor | str]:
        # Around both: processes are started by the second where there are none, and take its silence along.
        with silence():
            if self._loader is None:
                Image.init()  # before there are processes that would all do it
                self._loader = self._new_loader()
            chunks = iter(self._loader)
        _OPEN.add(self)
        # Anew, so that it comes before PyTorch's own, which waits seconds for each process.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        return chunks

    def _new_loader(self) -> DataLoader[Any]:
        processes = self._streamed.loaders or max(1, cores() // _side_by_side())
        processes = min(processes, -(-len(self._streamed) // CHUNK))
        return DataLoader(
            _Chunks(self._streamed),
            batch_size=None,  # chunks are what it hands out
            sampler=self._order,
            num_workers=processes,
            collate_fn=_as_it_is,
            pin_memory=self._streamed.is_cuda,
            worker_init_fn=_settle,
            prefetch_factor=max(2, -(-AHEAD * self._batch // (CHUNK * processes))),
            persistent_workers=True,
            # Its own, since it draws from it: drop-path's numbers must not depend on where images lie.
            generator=torch.Generator(),
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )


def resident(images: Tensor | Streamed) -> Tensor:
    """All images in the CPU's memory: uint8 (n, C, H, W), channels_last where they were streamed.

    Raises:
        DataError: one is no image or of another shape, or they do not fit.
    """
    if isinstance(images, Tensor):
        return images.cpu()
    count, channels, height, width = images.shape
    if count:
        check_memory(images.name(0), images.shape.numel())
    made = np.empty((count, height, width, channels), np.uint8)
    with silence(), closing(in_order(range(count), images.image, images.name)) as decoded:
        Image.init()
        for place, found in enumerate(decoded):
            if isinstance(found, PictureError):
                raise DataError(str(found)) from found
            made[place] = found
    return torch.from_numpy(made).permute(0, 3, 1, 2)


class _Order:
    """The chunks that a loader asks its processes for, and the images of each batch that they are of."""

    def __init__(self) -> None:
        self.batches: Callable[[], Iterable[Places]] = tuple
        self.counts: deque[int] = deque()

    def __iter__(self) -> Iterator[Places]:
        self.counts.clear()
        for places in self.batches():
            self.counts.append(len(places))
            yield from (places[start : start + CHUNK] for start in range(0, len(places), CHUNK))


class _Chunks(Dataset[Any]):
    """Images (n, H, W, C) by their places; a text says what is wrong with one of them."""

    def __init__(self, images: Streamed) -> None:
        self._images = images

    def __getitem__(self, places: Places) -> Tensor | str:
        channels, height, width = self._images.image_shape
        pixels = np.empty((len(places), height, width, channels), np.uint8)
        for number, place in enumerate(places.tolist()):
            try:
                pixels[number] = self._images.image(place)
            except PictureError as error:
                return str(error)
        return torch.from_numpy(pixels)


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _settle(number: int) -> None:
    """In a process of a loader: run on any core, and let the one that trains decide what signals mean."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # the machine has them no more
            os.sched_setaffinity(0, granted())


_OPEN: weakref.WeakSet[Staged] = weakref.WeakSet()


def _close_all() -> None:
    """Before this process ends, which would wait for those of loaders that nobody has closed."""
    for staged in list(_OPEN):
        staged.close()


def _side_by_side() -> int:
    """Processes that train together on this machine, as torchrun says."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(text)) if text.isdecimal() else 1
