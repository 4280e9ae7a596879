"""Batches of a data set, each a function of (seed, epoch, index).

Where images are resident on a device there are no worker processes and no loop over images: a batch is one
pass over the pixels it shows. Streamed ones are put beside each other first, a batch at a time; the pass over
them is the same, and so are its bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.draws import COLUMNS, Draws, draw_plan, new_plan
from pnas_fast.data.streamed import Streamed
from pnas_fast.kernels.augment import augment

if TYPE_CHECKING:
    from pnas_fast.data.loader import Places, Staged

Batch = tuple[Tensor, Tensor]
"""Images (b, C, H, W), channels_last, and int64 labels (b,)."""


class TrainingBatches:
    """Training batches, each a function of (seed, epoch, index) alone, with the same bits everywhere.

    An epoch shows every image at most once, in an order of its own. Each is normalised, padded with zeros
    (the mean colour) by ``data.crop_padding`` pixels on every side, cropped back to its size at a uniform
    offset and, where ``data.flip``, mirrored left and right with probability 1/2. Then a square of
    ``cutout`` pixels a side around a uniform pixel, cut off at the border, is set to zero (DeVries & Taylor
    2017). See `pnas_fast.data.draws` for the random numbers.

    Batches are whole: an incomplete last one would train on statistics of fewer images (of one, batch norm
    has none), so it is left out; the next order leaves out others. A set smaller than a batch is one batch.

    Args:
        data: the data set; batches are made on its device.
        batch: images of a batch, over all processes.
        seed: of orders, offsets, flips and squares; any integer.
        cutout: the square's side in pixels; 0 is none.
        dtype: of the images, to which the fp32 values of ``(image - mean) / std`` are rounded.
        share: (rank, size): this process's part of every batch, and of how many equal ones.

    Raises:
        DataError: ``batch`` is less than 1 or not a multiple of the number of parts, or the square has a
            negative side.
    """

    def __init__(
        self,
        data: DataSet,
        batch: int,
        seed: int,
        *,
        cutout: int = 0,
        dtype: torch.dtype = torch.float32,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if cutout < 0:
            raise DataError(f"cutout of {cutout} pixels, allowed are 0 or more")
        self._batch = min(_checked(batch), len(data.train_labels))
        rank, size = share
        if self._batch % size:
            raise DataError(
                f"batch of {self._batch} images for {size} processes, allowed are multiples of {size}"
            )
        self._count = len(data.train_labels) // self._batch
        device, part = data.train_images.device, self._batch // size
        self._images, self._staged = _pixels(data.train_images, part)
        self._labels, self._padding, self._cutout = data.train_labels, data.crop_padding, cutout
        self._table = level_table(data, dtype)
        self._seed, self._epoch = seed, -1
        self._draws = Draws(2 * data.crop_padding + 1, 2 if data.flip else 1, *data.image_shape[1:])
        self._plan = new_plan(len(data.train_labels), device)
        self._places = torch.arange(rank * part, (rank + 1) * part, device=device)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._count

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self._places.device

    @property
    def images(self) -> int:
        """Images of a batch, over all processes."""
        return self._batch

    def begin(self, epoch: int, index: int = 0) -> None:
        """Draw the order and augmentation of an epoch, for `feed` and `take`.

        Args:
            epoch: counted from 0.
            index: of the first batch that will be taken, counted from 0.
        """
        if epoch != self._epoch:
            draw_plan(self._plan, self._seed, epoch, self._draws)
            self._epoch = epoch
        if self._staged is not None:
            self._staged.begin(lambda: self._shown(index))

    def feed(self) -> None:
        """Have the images of the next batch where `take` finds them: once before each, in their order.

        It is for streamed images alone, whose `take` looks at nothing else.

        Raises:
            DataError: one of them cannot be read.
        """
        if self._staged is not None:
            self._staged.feed()

    def take(self, index: Tensor) -> Batch:
        """This process's part of a batch of the epoch that has begun.

        Everything happens on the device, with memory that stays where it is, so a CUDA graph can hold it.

        Args:
            index: of the batch, counted from 0: int64, of no dimensions, on the data set's device.
        """
        rows = self._plan.index_select(0, self._places + index * self._batch)
        labels = self._labels.index_select(0, rows[:, 0])
        if self._staged is not None:
            rows = self._staged.rows(rows)
        return augment(self._images, rows, self._table, self._padding, self._cutout), labels

    def epoch(self, epoch: int, index: int = 0) -> Iterator[Batch]:
        """This process's part of each batch of an epoch from the ``index``-th on; both are counted from 0."""
        self.begin(epoch, index)
        for number in range(index, self._count):
            self.feed()
            yield self.take(torch.full((), number, device=self.device))

    def batch(self, epoch: int, index: int) -> Batch:
        """This process's part of a batch; epoch and index are counted from 0.

        Raises:
            IndexError: an epoch has no such batch.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"batch {index} of an epoch of {self._count}")
        return next(self.epoch(epoch, index))

    def close(self) -> None:
        """End the processes that decode streamed images; there are none for others."""
        if self._staged is not None:
            self._staged.close()

    def _shown(self, index: int) -> Iterator[Places]:
        """The images of the epoch's batches from the ``index``-th on, in this process's part."""
        order = self._plan[:, 0].cpu().numpy().astype(np.int64)
        places = self._places.cpu().numpy()
        for number in range(index, self._count):
            yield order[places + number * self._batch]


class ValidationBatches:
    """All validation images in order, normalised, without augmentation, in batches of one size.

    Args:
        data: the data set; batches are made on its device.
        batch: images of a batch at most; a smaller set is one batch.
        dtype: of the images.

    Raises:
        DataError: ``batch`` is less than 1.
    """

    def __init__(self, data: DataSet, batch: int, *, dtype: torch.dtype = torch.float32) -> None:
        self._batch = min(_checked(batch), len(data.validation_labels))
        self._images, self._staged = _pixels(data.validation_images, self._batch)
        self._labels, self._table = data.validation_labels, level_table(data, dtype)
        self._places = torch.arange(self._batch, device=data.validation_images.device)

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self._labels) // self._batch)

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self._places.device

    def begin(self) -> None:
        """Begin with the first batch, for `feed` and `take`."""
        if self._staged is not None:
            self._staged.begin(self._shown)

    def feed(self) -> None:
        """Have the images of the next batch where `take` finds them: see `TrainingBatches.feed`.

        Raises:
            DataError: one of them cannot be read.
        """
        if self._staged is not None:
            self._staged.feed()

    def take(self, index: Tensor) -> Batch:
        """A batch, padded to full size by the last image with the label -1.

        Args:
            index: of the batch, counted from 0: int64, of no dimensions, on the data set's device.
        """
        places = self._places + index * self._batch
        last = len(self._labels) - 1
        taken = places.clamp(max=last)
        rows = torch.nn.functional.pad(taken[:, None], (0, COLUMNS - 1)).to(torch.int32)
        labels = self._labels.index_select(0, taken).masked_fill(places > last, -1)
        if self._staged is not None:
            rows = self._staged.rows(rows)
        return augment(self._images, rows, self._table, 0, 0), labels

    def close(self) -> None:
        """End the processes that decode streamed images; there are none for others."""
        if self._staged is not None:
            self._staged.close()

    def __iter__(self) -> Iterator[Batch]:
        self.begin()
        for index in range(len(self)):
            self.feed()
            yield self.take(torch.full((), index, device=self.device))

    def _shown(self) -> Iterator[Places]:
        """The images of all batches."""
        for start in range(0, len(self._labels), self._batch):
            yield np.arange(start, min(start + self._batch, len(self._labels)))


def _pixels(images: Tensor | Streamed, batch: int) -> tuple[Tensor, Staged | None]:
    """Images of which batches are made, where they lie; of streamed ones there is a batch at a time."""
    if isinstance(images, Streamed):
        from pnas_fast.data.loader import Staged  # here, since it imports Pillow

        staged = Staged(images, batch)
        return staged.images, staged
    return images.contiguous(memory_format=torch.channels_last), None


def level_table(data: DataSet, dtype: torch.dtype) -> Tensor:
    """``(level - mean) / std`` of all 256 grey levels, (C, 256), on the data set's device.

    It is worked out in fp32 on the CPU, whatever the device, and then rounded: the same bits everywhere.
    """
    levels, mean, std = torch.arange(256, dtype=torch.float32), data.mean.cpu(), data.std.cpu()
    return ((levels - mean[:, None]) / std[:, None]).to(data.mean.device, dtype)


def _checked(batch: int) -> int:
    if batch < 1:
        raise DataError(f"batch of {batch} images, allowed are 1 or more")
    return batch
