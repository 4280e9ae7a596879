"""TEMPORARY until TrainingBatches of data/ exists."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from pnas_fast.data import DataSet
from pnas_fast.data.batches import _windows, normalise


class TrainingBatches:
    def __init__(
        self, data: DataSet, batch: int, seed: int, *, cutout: int = 0, share: tuple[int, int] = (0, 1)
    ) -> None:
        self._data, self._seed, self._cutout, self._share = data, seed, cutout, share
        self._batch = batch
        self._epoch = -1
        self._windows = _windows(data)

    def __len__(self) -> int:
        return max(1, len(self._data.train_labels) // self._batch)

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        data = self._data
        count = len(data.train_labels)
        if epoch != self._epoch:
            seed = hashlib.blake2b(f"{self._seed} {epoch}".encode(), digest_size=4).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(seed))
            self._order = torch.randperm(count, generator=generator)
            self._choice = torch.randint(len(self._windows), (count,), generator=generator)
            self._holes = torch.rand(count, 2, generator=generator)
            self._epoch = epoch
        rank, size = self._share
        part = self._batch // size
        taken = slice(index * self._batch + rank * part, index * self._batch + (rank + 1) * part)
        rows = self._order[taken]
        (_c, height, width), p = data.image_shape, data.crop_padding
        images = torch.nn.functional.pad(normalise(data, data.train_images[rows]), (p, p, p, p))
        places = self._windows[self._choice[taken]]
        images = images.flatten(2).gather(2, places[:, None, :].expand(-1, images.shape[1], -1))
        images = images.view(len(rows), -1, height, width)
        if self._cutout:
            half = self._cutout / 2
            cy = (self._holes[taken, 0] * height).floor()[:, None, None]
            cx = (self._holes[taken, 1] * width).floor()[:, None, None]
            y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
            inside = (y >= cy - half) & (y < cy + half) & (x >= cx - half) & (x < cx + half)
            images = images.masked_fill(inside[:, None], 0.0)
        return images.contiguous(memory_format=torch.channels_last), data.train_labels[rows]
