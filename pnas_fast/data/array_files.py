"""Data sets whose parts are arrays in files: what is common to NumPy's files and IDX."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.labels import Labels, check_labels, flat
from pnas_fast.data.memory import Say, take_memory
from pnas_fast.data.parts import Part, assemble, check_shapes, counts, image_shape, names_of
from pnas_fast.data.source import Description, Source


class StoredArray(NamedTuple):
    """An array in a file.

    Attributes:
        title: for messages, say ``FILE: train_labels``.
        shape: of the array.
        dtype: of its values.
        read: reads it.
    """

    title: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]


class ArrayFiles(Source):
    """A source of arrays in files; what is known of it comes from their headers and the labels.

    Args:
        name: for people.
        say: told once, before it is taken, how much memory the images take.
    """

    def __init__(self, name: str, say: Say) -> None:
        super().__init__(name)
        self._say = say

    @abstractmethod
    def _arrays(self) -> Mapping[str, tuple[StoredArray, StoredArray]]:
        """Images and labels of each part that is there: ``train``, ``validation``, ``test``."""

    def describe(self) -> Description:
        """Of headers and labels."""
        arrays = self._arrays()
        shapes = {part: image_shape(*images[:3]) for part, (images, _) in arrays.items()}
        check_shapes(self.name, shapes)
        names = names_of(self.name, self._labels(arrays))
        _, height, width, channels = shapes["train"]
        return Description(len(names), (channels, height, width), *counts(shapes), names)

    def _labels(self, arrays: Mapping[str, tuple[StoredArray, StoredArray]]) -> dict[str, Labels]:
        for images, labels in arrays.values():
            check_labels(labels.title, labels.shape, labels.dtype, images.shape[0])
        return {part: flat(labels.title, _read(labels)) for part, (_, labels) in arrays.items()}

    def _read(self) -> DataSet:
        arrays = self._arrays()
        shapes = {part: image_shape(*images[:3]) for part, (images, _) in arrays.items()}
        # Before a single pixel is read.
        check_shapes(self.name, shapes)
        labels = self._labels(arrays)
        names = names_of(self.name, labels)
        images = sum(shape.images for shape in shapes.values())
        take_memory(self.name, images, *shapes["train"][1:], self._say)
        parts = {}
        for part, (stored, _) in arrays.items():
            pixels = np.require(_read(stored), np.uint8, ["C", "W"]).reshape(shapes[part])
            parts[part] = Part(pixels, labels[part])
        return assemble(self.name, parts, names=names)


def _read(array: StoredArray) -> np.ndarray:
    values = array.read()
    if values.shape != array.shape or values.dtype != array.dtype:  # it changed meanwhile
        raise DataError(
            f"{array.title}: {values.dtype} of shape {values.shape}, but its header said "
            f"{array.dtype} of shape {array.shape}"
        )
    return values


def place(spec: str, argument: str, form: str) -> Path:
    """The file or folder that a text names.

    Args:
        spec: the whole text, for messages.
        argument: what names it.
        form: how it is written.

    Raises:
        DataError: it names none.
    """
    if not argument or "\0" in argument:
        raise DataError(f"data {spec!r} names no place, expected {form}")
    try:
        return Path(argument).expanduser()
    except RuntimeError as error:  # the home of a user whom nobody knows
        raise DataError(f"{argument}: cannot be found ({error})") from error


def with_words(argument: str, allowed: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """The place and the words of ``PLACE#WORD,WORD``.

    A place whose own name has a ``#`` is itself where it is there.

    Args:
        argument: what was written.
        allowed: words that there are.

    Raises:
        DataError: another word.
    """
    where, hash_sign, said = argument.rpartition("#")
    if not hash_sign or os.path.exists(os.path.expanduser(argument)):
        return argument, ()
    words = tuple(said.split(","))
    strange = [word for word in words if word not in allowed]
    if strange:
        raise DataError(f"{argument}: {strange[0]!r} after #, allowed are {' '.join(allowed)}")
    return where, words
