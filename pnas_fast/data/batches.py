"""Batches of a data set that lies in memory: indexing, normalisation, pad-and-crop and flips.

Everything is a few tensor operations per batch on the data set's device; nothing loops over images
and there are no worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pnas_fast.data.dataset import DataError, DataSet

Batch = tuple[Tensor, Tensor]


def batches_per_epoch(data: DataSet, batch: int) -> int:
    """How many batches `batches` yields: only whole ones, but at least one.

    An incomplete last batch would train on statistics of fewer images (of one, batch norm has none),
    so it is left out; shuffling leaves out others next time. A set smaller than a batch is one batch.

    Raises:
        DataError: ``batch`` is less than 1.
    """
    if batch < 1:
        raise DataError(f"batch of {batch} images, allowed are 1 or more")
    return max(1, len(data.train_labels) // batch)


def batches(data: DataSet, batch: int, *, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch of shuffled, augmented training batches.

    Each image is normalised, padded with zeros (the mean colour) by ``data.crop_padding`` pixels on
    every side, cropped back to its size at an independent uniform offset, and, where ``data.flip``,
    mirrored left and right with probability 1/2.

    Args:
        data: the data set; batches are made on its device.
        batch: images per batch.
        generator: draws the order, offsets and flips of the whole epoch before the first batch. The
            same state gives the same batches bit for bit, on every device if it is a CPU generator.

    Yields:
        `batches_per_epoch` pairs of float32 (batch, C, H, W) images, channels_last, and int64 labels.

    Raises:
        DataError: ``batch`` is less than 1.
    """
    count = batches_per_epoch(data, batch)
    windows = _windows(data)
    images = len(data.train_labels)
    order = torch.randperm(images, generator=generator, device=generator.device)
    choice = torch.randint(len(windows), (images,), generator=generator, device=generator.device)
    device = data.train_images.device
    return _augmented(data, min(batch, images), count, windows, order.to(device), choice.to(device))


def _augmented(
    data: DataSet, batch: int, count: int, windows: Tensor, order: Tensor, choice: Tensor
) -> Iterator[Batch]:
    (channels, height, width), padding = data.image_shape, data.crop_padding
    pixels = data.train_images.permute(0, 2, 3, 1)
    # The border stays zero; each batch overwrites the inside.
    padded = torch.zeros(batch, height + 2 * padding, width + 2 * padding, channels, device=order.device)
    inside = padded[:, padding : padding + height, padding : padding + width]
    flat = padded.view(-1, channels)
    starts = torch.arange(0, len(flat), len(flat) // batch, device=order.device)[:, None]
    for taken, chosen in zip(
        torch.split(order, batch)[:count], torch.split(choice, batch)[:count], strict=True
    ):
        torch.sub(pixels.index_select(0, taken), data.mean, out=inside)
        inside.div_(data.std)
        places = windows.index_select(0, chosen).add_(starts).view(-1)
        images = flat.index_select(0, places).view(batch, height, width, channels)
        yield images.permute(0, 3, 1, 2), data.train_labels.index_select(0, taken)


def _windows(data: DataSet) -> Tensor:
    """Every crop of a padded image, int64 (crops, H·W): places of its pixels in reading order.

    With padding p there are (2p + 1)² offsets, and as many again, mirrored, where flips are allowed;
    all are equally likely.
    """
    (_, height, width), padding = data.image_shape, data.crop_padding
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    places = torch.arange(padded_height * padded_width, device=data.train_images.device)
    crops = places.view(padded_height, padded_width).unfold(0, height, 1).unfold(1, width, 1)
    if data.flip:
        crops = torch.stack([crops, crops.flip(-1)])
    return crops.reshape(-1, height * width)


def validation_batches(data: DataSet, batch: int) -> Iterator[Batch]:
    """All validation images in order, normalised, the last batch as short as it comes.

    Yields:
        float32 (b, C, H, W) images, channels_last, and int64 labels.

    Raises:
        DataError: ``batch`` is less than 1.
    """
    if batch < 1:
        raise DataError(f"batch of {batch} images, allowed are 1 or more")
    parts = zip(
        torch.split(data.validation_images, batch), torch.split(data.validation_labels, batch), strict=True
    )
    return ((normalise(data, images), labels) for images, labels in parts)


def normalise(data: DataSet, images: Tensor) -> Tensor:
    """``(image - mean) / std`` of uint8 (b, C, H, W) images: float32, channels_last."""
    centred = images - data.mean[:, None, None]
    return centred.div_(data.std[:, None, None]).contiguous(memory_format=torch.channels_last)
