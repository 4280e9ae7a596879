"""1,797 handwritten digits of 8×8, which come with the package: no download.

They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak 1998, UCI
Machine Learning Repository, licence CC BY 4.0), the same as scikit-learn's. ``digits.npz`` holds ``images``
uint8 (1797, 8, 8) of intensities 0 to 16 and ``labels`` uint8 (1797,), in that order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pnas_fast.data.dataset import DataSet, from_arrays, shuffled_places
from pnas_fast.data.source import Description, Source

IMAGES = 1797
VALIDATION_IMAGES = 360


class Digits(Source):
    """The digits as a source."""

    def __init__(self) -> None:
        super().__init__("digits")

    def describe(self) -> Description:
        """What is known without reading the images."""
        return Description(10, (1, 8, 8), IMAGES - VALIDATION_IMAGES, VALIDATION_IMAGES)

    def _read(self) -> DataSet:
        return load()


def load() -> DataSet:
    """Digits, 1,437 to train on and 360 to validate on, in a fixed random order.

    The 17 intensities 0 to 16 spread over grey levels 0 to 255. A crop may move by one pixel;
    a mirrored digit is another sign or none, so there are no flips.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        intensities, labels = file["images"], file["labels"].astype(np.int64)
    levels = np.rint(intensities * (255 / 16)).astype(np.uint8)[..., None]
    places = shuffled_places(len(levels))
    images, targets = np.empty_like(levels), np.empty_like(labels)
    images[places], targets[places] = levels, labels
    return from_arrays(
        "digits", 10, images, targets, validation=VALIDATION_IMAGES, crop_padding=1, flip=False
    )
