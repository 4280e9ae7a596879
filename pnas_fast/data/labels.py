"""Labels as people write them: whole numbers with or without gaps, or names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pnas_fast.data.dataset import DataError

Labels = npt.NDArray[Any]


def check_labels(title: str, shape: tuple[int, ...], dtype: np.dtype[Any], images: int) -> None:
    """Check what labels are before they are read.

    Args:
        title: for messages, say ``FILE: train_labels``.
        shape, dtype: of the labels.
        images: how many images they belong to.

    Raises:
        DataError: another shape than (images,) or (images, 1), or neither whole numbers nor text.
    """
    found = f"{title}: labels are {dtype} of shape {shape}"
    if len(shape) == 2 and shape[1] > 1:
        raise DataError(f"{found}: several labels an image, allowed is one, of shape ({images},)")
    if shape not in ((images,), (images, 1)):
        raise DataError(f"{found} for {images:,} images, allowed are ({images},) and ({images}, 1)")
    if dtype.kind not in "biuUS":
        raise DataError(f"{found}, allowed are whole numbers or text")


def flat(title: str, labels: Labels) -> Labels:
    """Labels (n,) of (n,) or (n, 1), bytes as text.

    Raises:
        DataError: bytes that are no UTF-8.
    """
    labels = labels.reshape(-1)
    if labels.dtype.kind == "S":
        try:
            return np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{title}: a label is no text in UTF-8 ({error.reason})") from error
    return labels


def class_names(title: str, parts: Iterable[Labels]) -> tuple[str, ...]:
    """The classes of all parts, in the order of their numbers: whole numbers by value, text by letters.

    Text that is whole numbers throughout is ordered as numbers, so that a folder ``10`` comes after ``9``.

    Raises:
        DataError: labels are numbers in one part and text in another, or all of one class.
    """
    parts = list(parts)
    if len({part.dtype.kind == "U" for part in parts}) > 1:
        raise DataError(f"{title}: labels are numbers in one part, text in another; allowed is one of them")
    names = {str(name) for part in parts for name in np.unique(part).tolist()}
    if len(names) < 2:
        raise DataError(f"{title}: {len(names)} class ({', '.join(names)}), allowed are 2 or more")
    return sorted_names(names)


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: see `class_names`."""
    names = list(names)
    if all(_is_number(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def numbered(title: str, labels: Labels, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """The number of each label's class.

    Raises:
        DataError: a label that is no class.
    """
    places = {name: place for place, name in enumerate(names)}
    values, inverse = np.unique(labels, return_inverse=True)
    texts = [str(value) for value in values.tolist()]
    strange = [text for text in texts if text not in places]
    if strange:
        raise DataError(
            f"{title}: label {strange[0]!r}, which no training image has, allowed are {_shown(names)}"
        )
    return np.array([places[text] for text in texts], np.int64)[inverse.reshape(-1)]


def _is_number(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19


def _shown(names: Sequence[str]) -> str:
    """Names for a message, not too many."""
    if len(names) <= 12:
        return " ".join(names)
    return f"{' '.join(names[:6])} … {names[-1]} ({len(names):,} classes)"
