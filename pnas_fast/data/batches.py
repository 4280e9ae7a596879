"""Batches of a data set that is resident on a device, each a function of (seed, epoch, index).

There are no worker processes and no loop over images: a batch is one pass over the pixels it shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.draws import COLUMNS, Draws, draw_plan, new_plan
from pnas_fast.kernels.augment import augment

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
        self._images = data.train_images.contiguous(memory_format=torch.channels_last)
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

    def begin(self, epoch: int) -> None:
        """Draw the order and augmentation of an epoch, counted from 0, for `take`."""
        if epoch != self._epoch:
            draw_plan(self._plan, self._seed, epoch, self._draws)
            self._epoch = epoch

    def take(self, index: Tensor) -> Batch:
        """This process's part of a batch of the epoch that has begun.

        Everything happens on the device, with memory that stays where it is, so a CUDA graph can hold it.

        Args:
            index: of the batch, counted from 0: int64, of no dimensions, on the data set's device.
        """
        rows = self._plan.index_select(0, self._places + index * self._batch)
        images = augment(self._images, rows, self._table, self._padding, self._cutout)
        return images, self._labels.index_select(0, rows[:, 0])

    def batch(self, epoch: int, index: int) -> Batch:
        """This process's part of a batch; epoch and index are counted from 0.

        Raises:
            IndexError: an epoch has no such batch.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"batch {index} of an epoch of {self._count}")
        self.begin(epoch)
        return self.take(torch.full((), index, device=self.device))


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
        self._images = data.validation_images.contiguous(memory_format=torch.channels_last)
        self._labels, self._table = data.validation_labels, level_table(data, dtype)
        self._places = torch.arange(self._batch, device=data.validation_images.device)

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self._labels) // self._batch)

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self._places.device

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
        return augment(self._images, rows, self._table, 0, 0), labels

    def __iter__(self) -> Iterator[Batch]:
        for index in range(len(self)):
            yield self.take(torch.full((), index, device=self.device))


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
