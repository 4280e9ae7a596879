"""Training batches that can be made again: each is a function of (seed, epoch, index)."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from pnas_fast.data import DataSet, batches_per_epoch
from pnas_fast.data.batches import Batch, normalise


class TrainingBatches:
    """Shuffled, augmented batches of a data set, on its device.

    Each image is normalised, padded with zeros (the mean colour) by ``data.crop_padding`` pixels, cropped
    back at a uniform offset and, where ``data.flip``, mirrored with probability 1/2. Then a square of
    ``cutout`` pixels a side around a uniform pixel, cut off at the border, is set to zero (DeVries & Taylor
    2017).

    Args:
        data: the data set.
        batch: images of a batch, over all processes; a set smaller than a batch is one batch.
        seed: with the epoch it seeds the generator of the epoch's order, offsets, flips and squares.
        cutout: the square's side in pixels; 0 is none.
        share: (rank, size): this process's part of every batch, and of how many equal ones.

    Raises:
        DataError: ``batch`` is less than 1.
    """

    def __init__(
        self, data: DataSet, batch: int, seed: int, *, cutout: int = 0, share: tuple[int, int] = (0, 1)
    ) -> None:
        self._data, self._seed, self._cutout = data, seed, cutout
        self._batches = batches_per_epoch(data, batch)
        self._batch = min(batch, len(data.train_labels))
        (rank, size) = share
        self._part = slice(rank * (self._batch // size), (rank + 1) * (self._batch // size))
        self._epoch = -1

    def __len__(self) -> int:
        """Batches of an epoch, whole ones alone."""
        return self._batches

    def batch(self, epoch: int, index: int) -> Batch:
        """This process's part of a batch: float32 (b, C, H, W), channels_last, and int64 labels."""
        if epoch != self._epoch:
            self._draw(epoch)
        mine = self._chosen[index * self._batch : (index + 1) * self._batch][self._part]
        taken, top, left, mirror, y, x = mine.unbind(1)
        images = self._crop(normalise(self._data, self._data.train_images[taken]), top, left, mirror)
        if self._cutout:
            images = images.masked_fill(self._squares(y, x), 0.0)
        return images.contiguous(memory_format=torch.channels_last), self._data.train_labels[taken]

    def _draw(self, epoch: int) -> None:
        data = self._data
        count, (_, height, width) = len(data.train_labels), data.image_shape
        digest = hashlib.blake2b(f"{self._seed} {epoch}".encode(), digest_size=4).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        offsets, flips = 2 * data.crop_padding + 1, 2 if data.flip else 1
        drawn = [torch.randperm(count, generator=generator)]
        for values in (offsets, offsets, flips, height, width):
            drawn.append(torch.randint(values, (count,), generator=generator))
        self._chosen = torch.stack(drawn, dim=1).to(data.train_images.device)
        self._epoch = epoch

    def _crop(self, images: Tensor, top: Tensor, left: Tensor, mirror: Tensor) -> Tensor:
        _, height, width = self._data.image_shape
        padded = F.pad(images, (self._data.crop_padding,) * 4)
        rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
        columns = torch.where(mirror[:, None] == 1, width - 1 - columns, columns)
        # The indexed axes come first: NHWC.
        each = torch.arange(len(images), device=images.device)[:, None, None]
        cropped = padded[each, :, (top[:, None] + rows)[:, :, None], (left[:, None] + columns)[:, None, :]]
        return cropped.permute(0, 3, 1, 2)

    def _squares(self, y: Tensor, x: Tensor) -> Tensor:
        """Whether a pixel is blanked out, (b, 1, H, W)."""
        inside = []
        for centre, size in zip((y, x), self._data.image_shape[1:], strict=True):
            first = centre[:, None] - self._cutout // 2
            place = torch.arange(size, device=centre.device)
            inside.append((place >= first) & (place < first + self._cutout))
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
