"""18,000 pictures of clothes of 14×14, which come with the package: no download.

They are a part of Fashion-MNIST (H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", 2017; copyright Zalando SE, MIT licence, in ``fashion.license``),
made by ``bench/make_fashion.py``: each pixel is the mean of 2×2. ``fashion.npz`` holds ``images`` uint8
(18000, 14, 14) and ``labels`` uint8 (18000,), in the order train, validation, test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pnas_fast.data.dataset import DataSet, from_arrays
from pnas_fast.data.source import Description, Source

CLASSES = 10
TRAIN_IMAGES = 8_000
VALIDATION_IMAGES = 5_000
TEST_IMAGES = 5_000
FILE = Path(__file__).with_name("fashion.npz")


class Fashion(Source):
    """The clothes as a source."""

    def __init__(self) -> None:
        super().__init__("fashion")

    def describe(self) -> Description:
        """What is known without reading the images."""
        return Description(CLASSES, (1, 14, 14), TRAIN_IMAGES, VALIDATION_IMAGES, TEST_IMAGES)

    def _read(self) -> DataSet:
        return load()


def load() -> DataSet:
    """Clothes: 8,000 to train on, 5,000 to validate on and 5,000 to test on, of each class as many.

    A crop may move by one pixel, and a mirrored shirt is a shirt.
    """
    with np.load(FILE, allow_pickle=False) as file:
        images, labels = file["images"][..., None], file["labels"]
    return from_arrays(
        "fashion", CLASSES, images, labels, validation=VALIDATION_IMAGES, test=TEST_IMAGES,
        crop_padding=1, flip=True,
    )  # fmt: skip
