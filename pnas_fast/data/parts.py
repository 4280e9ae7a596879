"""A data set from whatever parts people have: training images alone, or with validation and test images.

All sources of people's own images end here, so the same images are the same data set in whatever files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pnas_fast.data.dataset import (
    DataError,
    DataSet,
    Images,
    statistics,
    usual_padding,
    usual_validation,
)
from pnas_fast.data.labels import Labels, class_names, numbered
from pnas_fast.data.order import rearrange, seeded_order, stratified

PARTS = ("train", "validation", "test")

MOST_CHANNELS = 16
"""More are taken for an array whose axes are in another order."""


class Part(NamedTuple):
    """Images uint8 (n, H, W, C), which `assemble` rearranges in place, and labels (n,)."""

    images: Images
    labels: Labels


class Shape(NamedTuple):
    """How many images a part has, and of which height, width and channels."""

    images: int
    height: int
    width: int
    channels: int


def image_shape(title: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Shape:
    """The shape of an array of images, which may leave out the one channel of grey images.

    Raises:
        DataError: another type, number of axes or channels, or no images.
    """
    found = f"{title}: images are {dtype} of shape {shape}"
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{found}, allowed are uint8 of shape (n, H, W) or (n, H, W, C), none of them 0")
    if len(shape) == 4 and shape[3] > MOST_CHANNELS:
        raise DataError(f"{found}, which is (n, H, W, C): allowed are 1 to {MOST_CHANNELS} channels, C")
    images, height, width, channels = (*shape, 1)[:4]
    return Shape(images, height, width, channels)


def check_shapes(name: str, shapes: Mapping[str, Shape]) -> None:
    """Raise `DataError` where parts have images of different shapes, or there are too few to split."""
    train = shapes["train"]
    for part, shape in shapes.items():
        if shape[1:] != train[1:]:
            sizes = " and ".join(f"{s.height}x{s.width}x{s.channels}" for s in (train, shape))
            raise DataError(f"{name}: train and {part} images are {sizes}, allowed is one shape")
    if "validation" not in shapes and train.images < 2:
        raise DataError(f"{name}: 1 image to train and validate on, allowed are 2 or more")


def counts(shapes: Mapping[str, Shape]) -> tuple[int, int, int]:
    """Images to train, validate and test on, once a missing validation part is split off."""
    train, test = shapes["train"].images, shapes["test"].images if "test" in shapes else 0
    if "validation" in shapes:
        return train, shapes["validation"].images, test
    held = split_off(train)
    return train - held, held, test


def split_off(count: int) -> int:
    """How many of so many training images validate where no others do."""
    return max(1, usual_validation(count))


def names_of(name: str, labels: Mapping[str, Labels]) -> tuple[str, ...]:
    """The classes of the parts that training and evaluation see.

    Raises:
        DataError: see `class_names`.
    """
    return class_names(name, [labels[part] for part in PARTS[:2] if part in labels])


def assemble(
    name: str,
    parts: Mapping[str, Part],
    *,
    names: tuple[str, ...] | None = None,
    validation: int | None = None,
    crop_padding: int | None = None,
    flip: bool = False,
) -> DataSet:
    """A data set of parts, each in the order of `seeded_order`.

    Args:
        name: for people.
        parts: ``train``, and where they are there ``validation`` and ``test``; memory of the images is used.
        names: of the classes, in order; those of the training and validation labels by default.
        validation: how many training images validate where no others do; a tenth by default, stratified.
        crop_padding: as of a `DataSet`; 4, or an eighth of smaller images, by default.
        flip: likewise. A mirrored digit is none, so nothing is mirrored where nobody said so.

    Raises:
        DataError: parts that do not fit together, fewer than two classes, a label of its own in the test.
    """
    parts = dict(parts)
    check_shapes(name, {part: Shape(*found.images.shape) for part, found in parts.items()})
    names = names or names_of(name, {part: found.labels for part, found in parts.items()})
    made: dict[str, tuple[Images, npt.NDArray[np.int64]]] = {}
    for part, (images, labels) in parts.items():
        targets = numbered(f"{name}: {part}", labels, names)
        order = seeded_order(images, targets)
        if part == "train" and "validation" not in parts:
            held = split_off(len(targets)) if validation is None else validation
            order = order[stratified(targets[order], held)]
        rearrange(images, order)
        made[part] = images, targets[order]
    if "validation" not in made:
        images, targets = made["train"]
        split = len(targets) - held
        made["train"], made["validation"] = (
            (images[:split], targets[:split]),
            (images[split:], targets[split:]),
        )
    train = made["train"][0]
    mean, std = statistics(train)
    padding = usual_padding(*train.shape[1:3]) if crop_padding is None else crop_padding
    test_images, test_labels = _tensors(*made["test"]) if "test" in made else (None, None)
    train_images, train_labels = _tensors(*made["train"])
    validation_images, validation_labels = _tensors(*made["validation"])
    return DataSet(
        name,
        len(names),
        train_images,
        train_labels,
        validation_images,
        validation_labels,
        mean,
        std,
        padding,
        flip,
        test_images,
        test_labels,
        names,
    )


def _tensors(images: Images, labels: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) in the array's memory, which makes them channels_last, as batches are."""
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
