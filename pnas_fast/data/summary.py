"""A data set for people: a table of what there is, and a sheet of images of each class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from torch import Tensor

from pnas_fast.data.dataset import DataSet
from pnas_fast.data.digest import digest
from pnas_fast.foreign import printable

COLUMNS = 10
"""Images of a class on a sheet."""

ROWS = 100
"""Classes on a sheet."""

_SIDE = 32
"""Pixels that an image has on a sheet at least; smaller ones are enlarged."""

_GAP = 2


def summary(data: DataSet) -> Iterator[str]:
    """Lines that say what a data set is, with the images of each class in a table."""
    channels, height, width = data.image_shape
    kind = {1: "grey", 3: "in colour"}.get(channels, f"of {channels} channels")
    mirrored = "mirrored at random" if data.flip else "not mirrored"
    yield (
        f"{printable(data.name)}: {data.classes:,} classes, images of {width}x{height} {kind}; "
        f"crops move by {data.crop_padding}, {mirrored}"
    )
    for name, values in (("mean", data.mean), ("std", data.std)):
        levels = " ".join(f"{value:.2f}" for value in values.tolist())
        shares = " ".join(f"{value / 255:.4f}" for value in values.tolist())
        yield f"{name} {levels} (of 255), {shares} (of 1)"
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


def contact_sheet(data: DataSet) -> Image.Image:
    """The first training images of each class, a row each, in the classes' order."""
    channels, height, width = data.image_shape
    shown = 3 if channels >= 3 else 1
    scale = max(1, -(-_SIDE // min(height, width)))
    down, across = height * scale + _GAP, width * scale + _GAP
    rows = min(data.classes, ROWS)
    sheet = np.full((rows * down + _GAP, COLUMNS * across + _GAP, shown), 255, np.uint8)
    labels = data.train_labels.numpy()
    for row in range(rows):
        for column, place in enumerate(np.flatnonzero(labels == row)[:COLUMNS]):
            pixels = data.train_images[int(place), :shown].permute(1, 2, 0).numpy()
            top, left = _GAP + row * down, _GAP + column * across
            large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return Image.fromarray(sheet if shown == 3 else sheet[..., 0])
