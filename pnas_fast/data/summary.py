"""A data set for people: a table of what there is, and a sheet of images of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pnas_fast.data.augmentation import in_words
from pnas_fast.data.batches import TrainingBatches
from pnas_fast.data.dataset import DataSet
from pnas_fast.data.digest import digest
from pnas_fast.data.loader import resident
from pnas_fast.data.stream import SAMPLE
from pnas_fast.data.streamed import Streamed
from pnas_fast.foreign import printable

COLUMNS = 10
"""Images of a class on a sheet."""

ROWS = 100
"""Classes on a sheet."""

SHEET_SEED = 0
"""Of the augmentation that a sheet shows."""

_SIDE = 32
"""Pixels that an image has on a sheet at least; smaller ones are enlarged."""

_GAP = 2


def summary(data: DataSet, cutout: int = 0) -> Iterator[str]:
    """Lines that say what a data set is, with the images of each class in a table.

    Args:
        data: the data set.
        cutout: side of the square that is blanked out of training images, which no data set says itself.
    """
    channels, height, width = data.image_shape
    kind = {1: "grey", 3: "in colour"}.get(channels, f"of {channels} channels")
    yield (
        f"{printable(data.name)}: {data.classes:,} classes, images of {width}x{height} {kind}; "
        f"{in_words(data.crop_padding, data.flip, cutout)}"
    )
    for name, values in (("mean", data.mean), ("std", data.std)):
        levels = " ".join(f"{value:.2f}" for value in values.tolist())
        shares = " ".join(f"{value / 255:.4f}" for value in values.tolist())
        yield f"{name} {levels} (of 255), {shares} (of 1)"
    if isinstance(data.train_images, Streamed):
        yield f"decoded whenever they are looked at; mean and std are of {SAMPLE:,} images at most"
    yield f"identity {digest(data)}"
    parts = {"train": data.train_labels, "validation": data.validation_labels}
    if data.test_labels is not None:
        parts["test"] = data.test_labels
    yield from _table(data, parts)


def _table(data: DataSet, parts: dict[str, Tensor]) -> Iterator[str]:
    names = data.class_names or tuple(map(str, range(data.classes)))
    shown = [printable(name) for name in names]
    width = max(map(len, (*shown, "class")))
    counts = [labels.bincount(minlength=data.classes).tolist() for labels in parts.values()]
    yield "  ".join(["class".ljust(width), *(f"{name:>10}" for name in parts)])
    for number, name in enumerate(shown):
        yield "  ".join([name.ljust(width), *(f"{count[number]:>10,}" for count in counts)])
    yield "  ".join(["all".ljust(width), *(f"{sum(count):>10,}" for count in counts)])


def contact_sheet(data: DataSet, cutout: int = 0) -> Image.Image:
    """The first training images of each class, a row each, in the classes' order.

    The last row are images as a training sees them: the first ones of the classes, augmented.

    Args:
        data: the data set.
        cutout: as of `summary`.
    """
    labels = data.train_labels.numpy()
    chosen = [np.flatnonzero(labels == row)[:COLUMNS] for row in range(min(data.classes, ROWS))]
    first = np.array([place for column in range(COLUMNS) for row in chosen for place in row[column:][:1]])
    rows = [resident(data.train_images[row]) for row in chosen]
    return _sheet([*rows, _augmented(data, first[:COLUMNS], cutout)])


def _augmented(data: DataSet, places: np.ndarray, cutout: int) -> Tensor:
    """Some training images as the first batch of a training on them alone shows them, uint8."""
    few = replace(data, train_images=data.train_images[places], train_labels=data.train_labels[places])
    with closing(TrainingBatches(few, len(places), SHEET_SEED, cutout=cutout)) as batches:
        images, _ = batches.batch(0, 0)
    levels = images * data.std[:, None, None] + data.mean[:, None, None]
    return levels.round().to(torch.uint8)


def _sheet(rows: Sequence[Tensor]) -> Image.Image:
    """Images, uint8 (n, C, H, W) each row, side by side in rows, enlarged where they are small."""
    channels, height, width = rows[0].shape[1:]
    shown = 3 if channels >= 3 else 1
    scale = max(1, -(-_SIDE // min(height, width)))
    down, across = height * scale + _GAP, width * scale + _GAP
    sheet = np.full((len(rows) * down + _GAP, COLUMNS * across + _GAP, shown), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            pixels = image[:shown].permute(1, 2, 0).numpy()
            top, left = _GAP + row * down, _GAP + column * across
            large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return Image.fromarray(sheet if shown == 3 else sheet[..., 0])
