"""Images and labels that a Python program has in memory."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from pnas_fast.data.dataset import DataError, DataSet, Images
from pnas_fast.data.parts import MOST_CHANNELS, Part, assemble, split_off
from pnas_fast.data.source import Description, Source, described
from pnas_fast.protocols import DataSource

ARRAYS = "arrays"
"""The name of a data set that is given without one."""


class InMemory(Source):
    """A data set that is in memory already."""

    def __init__(self, data: DataSet) -> None:
        super().__init__(data.name)
        self._data = data.to("cpu")

    def describe(self) -> Description:
        """Of the data set."""
        return described(self.open())

    def _read(self) -> DataSet:
        raise AssertionError("in memory from the beginning")


def as_source(
    data: Any,
    *,
    classes: int | None = None,
    validation: int | None = None,
    crop_padding: int | None = None,
    flip: bool = False,
) -> DataSource:
    """A source of what a Python program has in memory.

    Images are copied into a fixed random order, the same however they were sorted before; the last of them
    validate, of each class a share of them like its own. Changing the arrays afterwards changes nothing.

    Args:
        data: (images, labels): uint8 (n, H, W, C) grey levels 0 to 255, and whole numbers (n,) from 0. Or
            a `DataSet`, whose own split and augmentation are kept. Or a `DataSource`, which is given back.
        classes: how many there are; one more than the greatest label by default.
        validation: images that validate; a tenth of them, at least one, by default.
        crop_padding: pixels on every side that a random crop may move by; by default 4, or an eighth of
            the shorter side where that is less.
        flip: whether an image mirrored left and right keeps its label. It does for most photographs, not
            for digits or letters.

    Raises:
        DataError: arrays of another shape, type or range; fewer than two images or classes; settings for
            a data set that has its own.
    """
    if isinstance(data, DataSet) or _is_source(data):
        if (classes, validation, crop_padding, flip) != (None, None, None, False):
            raise DataError(
                f"{data.name}: has its own classes, split and augmentation, allowed are no others"
            )
        return InMemory(data) if isinstance(data, DataSet) else data
    images, labels = _checked(data)
    count = len(images)
    held = split_off(count) if validation is None else validation
    if not 1 <= held < count:
        raise DataError(f"{ARRAYS}: {held} of {count} images validate, allowed are 1 to {count - 1}")
    least, number = int(labels.min()), _classes(labels, classes)
    if least < 0 or int(labels.max()) >= number:
        raise DataError(
            f"{ARRAYS}: labels run from {least} to {int(labels.max())}, allowed are 0 to {number - 1}"
        )
    # A copy, which is put into order in place.
    made = assemble(
        ARRAYS,
        {"train": Part(np.array(images, order="C"), labels)},
        names=tuple(map(str, range(number))),
        validation=held,
        crop_padding=crop_padding,
        flip=flip,
    )
    return InMemory(made)


def _is_source(data: Any) -> TypeGuard[DataSource]:
    return all(hasattr(data, name) for name in ("name", "identity", "open"))


def _checked(data: Any) -> tuple[Images, npt.NDArray[np.int64]]:
    """Images (n, H, W, C) and labels (n,), of the types that they should have."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError(
            f"data are {type(data).__name__}, allowed are (images, labels), a DataSet or a source"
        )
    try:
        images, labels = (np.asarray(part) for part in data)
    except Exception as error:  # whatever somebody else's object says of itself
        raise DataError(
            f"{ARRAYS}: images or labels are no array ({' '.join(str(error).split())})"
        ) from error
    found = f"{ARRAYS}: images are {images.dtype} of shape {images.shape}"
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise DataError(f"{found}, allowed are uint8 of shape (n, H, W, C), none of them 0")
    if images.shape[3] > MOST_CHANNELS:
        raise DataError(f"{found}, which is (n, H, W, C): allowed are 1 to {MOST_CHANNELS} channels, C")
    if len(images) < 2:
        raise DataError(f"{found}, allowed are two images or more")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(
            f"{ARRAYS}: labels are {labels.dtype} of shape {labels.shape}, "
            f"allowed are whole numbers of shape ({len(images)},)"
        )
    return images, labels.astype(np.int64)


def _classes(labels: npt.NDArray[np.int64], classes: int | None) -> int:
    number = int(labels.max()) + 1 if classes is None else classes
    if number < 2:
        raise DataError(f"{ARRAYS}: {number} classes, allowed are 2 or more")
    return number
