"""The digits that come with scikit-learn: 1,797 handwritten digits of 8×8, no download."""

from __future__ import annotations

import numpy as np

from pnas_fast.data.dataset import DataSet, from_arrays, shuffled_places

VALIDATION_IMAGES = 360


def load() -> DataSet:
    """Digits, 1,437 to train on and 360 to validate on, in a fixed random order.

    The 17 intensities 0 to 16 spread over grey levels 0 to 255. A crop may move by one pixel;
    a mirrored digit is another sign or none, so there are no flips.
    """
    from sklearn.datasets import load_digits  # here, because importing scikit-learn takes a second

    intensities, labels = load_digits(return_X_y=True)
    levels = np.rint(intensities * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    places = shuffled_places(len(levels))
    images, targets = np.empty_like(levels), np.empty_like(labels)
    images[places], targets[places] = levels, labels
    return from_arrays(
        "digits", 10, images, targets, validation=VALIDATION_IMAGES, crop_padding=1, flip=False
    )
