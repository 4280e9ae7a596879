"""What a data set is, as a digest of its contents: two copies of it are one, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pnas_fast.data.dataset import DataSet
from pnas_fast.data.streamed import Streamed


def digest(data: DataSet) -> str:
    """SHA-256 in hex of all that training and choices see of a data set.

    That is the images (pixels and shapes), labels and order of the training and validation parts, mean and
    std, the number of classes, and how images are augmented. Its name, its device and its tensors' strides
    do not count, nor does a test part, which decides nothing: a run goes on where test images come or go.
    See `test_digest`.

    Of streamed images it is, in place of pixels, names and numbers of bytes: to decode them all takes hours.
    """
    arrays = {
        "train_images": _pixels(data.train_images),
        "train_labels": _array(data.train_labels, "<i8"),
        "validation_images": _pixels(data.validation_images),
        "validation_labels": _array(data.validation_labels, "<i8"),
        "mean": _array(data.mean, "<f4"),
        "std": _array(data.std, "<f4"),
    }
    rest = {"classes": int(data.classes), "crop_padding": int(data.crop_padding), "flip": bool(data.flip)}
    return _digest({**rest, **_streamed(data.train_images)}, arrays)


def test_digest(data: DataSet) -> str:
    """SHA-256 in hex of the images, labels and order of the test part.

    Raises:
        DataError: there is none.
    """
    tested = data.tested()
    arrays = {
        "test_images": _pixels(tested.validation_images),
        "test_labels": _array(tested.validation_labels, "<i8"),
    }
    return _digest(_streamed(tested.validation_images), arrays)


def _digest(rest: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> str:
    # Shapes first, so that no two data sets are the same row of bytes.
    header = {"version": 1, **rest, "shapes": {name: array.shape for name, array in arrays.items()}}
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for array in arrays.values():
        sha256.update(array.data)
    return sha256.hexdigest()


def _streamed(images: Tensor | Streamed) -> dict[str, object]:
    """What decides the pixels of streamed images besides their files."""
    if isinstance(images, Tensor):
        return {}
    return {"image_shape": images.image_shape, "resized": images.size}


def _pixels(images: Tensor | Streamed) -> np.ndarray:
    """Images (n, H, W, C), as they lie in memory as a rule: then nothing is copied.

    Of streamed ones, what they are known by.
    """
    if isinstance(images, Streamed):
        return np.ascontiguousarray(images.words, "<u8")
    return _array(images.permute(0, 2, 3, 1), "u1")


def _array(tensor: Tensor, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(tensor.cpu().numpy(), dtype)
