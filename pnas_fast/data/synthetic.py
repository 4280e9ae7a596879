"""Made-up images of any size, for measuring throughput where no real data set is at hand."""

from __future__ import annotations

import re

import numpy as np

from pnas_fast.data.dataset import (
    SPLIT_SEED,
    DataError,
    DataSet,
    Images,
    from_arrays,
    usual_padding,
    usual_validation,
)
from pnas_fast.data.source import Description, Source

_SPEC = re.compile(r"(\d{1,4})x(\d{1,4})x(\d{1,4})/(\d{1,4})", re.ASCII)

_ALLOWED = {"height": (1, 512), "width": (1, 512), "channels": (1, 16), "classes": (2, 1000)}

MOST_IMAGES = 5_000
MOST_BYTES = 2**28
"""Large images are fewer, so that the set stays within this many bytes."""


class Synthetic(Source):
    """Made-up images as a source.

    Args:
        argument: ``HxWxC/CLASSES``, say ``32x32x3/10``.

    Raises:
        DataError: the argument is malformed or a number is out of range.
    """

    def __init__(self, argument: str) -> None:
        super().__init__(f"synthetic:{argument}")
        self._argument = argument
        _parse(argument)

    def describe(self) -> Description:
        """What is known without making the images."""
        height, width, channels, classes = _parse(self._argument)
        count = _count(height, width, channels)
        validation = usual_validation(count)
        return Description(classes, (channels, height, width), count - validation, validation)

    def _read(self) -> DataSet:
        return load(self._argument)


def load(argument: str) -> DataSet:
    """A synthetic data set, the same for the same argument, nine tenths of it to train on.

    Each class has a coarse random pattern; an image is a quarter its class's pattern and three
    quarters uniform noise, so a network can learn the classes but has to try. There are 5,000 images,
    or as many as fit 256 MiB; labels take turns. Augmentation is CIFAR-10's, scaled to the size.

    Args:
        argument: ``HxWxC/CLASSES``, say ``32x32x3/10``.

    Raises:
        DataError: the argument is malformed or a number is out of range.
    """
    height, width, channels, classes = _parse(argument)
    random = np.random.RandomState(SPLIT_SEED)
    count = _count(height, width, channels)
    labels = np.arange(count) % classes
    patterns = _patterns(random, classes, (height, width, channels))
    images = random.randint(0, 256, (count, height, width, channels), dtype=np.uint8)
    for label in range(classes):
        mine = images[label::classes]
        mine -= mine // 4  # noise 0 to 192, pattern 0 to 63: never more than 255
        mine += patterns[label] // 4
    return from_arrays(
        f"synthetic:{argument}",
        classes,
        images,
        labels,
        validation=usual_validation(count),
        crop_padding=usual_padding(height, width),
        flip=True,
    )


def _count(height: int, width: int, channels: int) -> int:
    """Images, validation included."""
    return min(MOST_IMAGES, MOST_BYTES // (height * width * channels))


def _parse(argument: str) -> list[int]:
    match = _SPEC.fullmatch(argument)
    if match is None:
        raise DataError(
            f"data 'synthetic:{argument}' is malformed, expected synthetic:HxWxC/CLASSES, "
            "for example synthetic:32x32x3/10"
        )
    values = [int(group) for group in match.groups()]
    for (name, (least, most)), value in zip(_ALLOWED.items(), values, strict=True):
        if not least <= value <= most:
            raise DataError(f"data 'synthetic:{argument}': {name} {value}, allowed are {least} to {most}")
    return values


def _patterns(random: np.random.RandomState, classes: int, shape: tuple[int, int, int]) -> Images:
    """One pattern of random 4×4 squares per class, uint8 (classes, H, W, C)."""
    height, width, channels = shape
    squares = random.randint(0, 256, (classes, -(-height // 4), -(-width // 4), channels), dtype=np.uint8)
    return squares.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
