"""Where a data set comes from: what is known before its pixels are read, and the data set, read once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.digest import digest


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a data set without its pixels.

    Attributes:
        classes: how many there are.
        image_shape: the (C, H, W) of every image.
        train_images: how many there are to train on.
        validation_images: how many there are to validate on.
        test_images: how many there are to test on, which may be none.
        class_names: of the classes in order, where they have names.
    """

    classes: int
    image_shape: tuple[int, int, int]
    train_images: int
    validation_images: int
    test_images: int = 0
    class_names: tuple[str, ...] = ()

    @property
    def stand_in(self) -> str:
        """The spec of made-up images of the same shape and classes, to measure speed with."""
        channels, height, width = self.image_shape
        return f"synthetic:{height}x{width}x{channels}/{self.classes}"


class Source(ABC):
    """A `pnas_fast.protocols.DataSource`; its data set stays in memory once it has been opened.

    Args:
        name: for people.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._data: DataSet | None = None
        self._identity: str | None = None

    @property
    def name(self) -> str:
        """For people, such as ``digits``."""
        return self._name

    @abstractmethod
    def describe(self) -> Description:
        """What is known without reading the images."""

    def identity(self) -> str:
        """Digest of what the data are, wherever they lie: see `digest`. Opens the data set.

        Raises:
            DataError: as `open` does.
        """
        if self._identity is None:
            self._identity = digest(self.open())
        return self._identity

    def open(self) -> DataSet:
        """The data set in the CPU's memory, the same object each time.

        Raises:
            DataError: it is missing, cannot be read or fetched, or is not what it should be.
        """
        if self._data is None:
            try:
                self._data = self._read()
            except OSError as error:
                place = error.filename or self._name
                raise DataError(f"{place}: cannot be read ({error.strerror or error})") from error
            except MemoryError as error:
                raise DataError(f"{self._name}: does not fit in memory") from error
        return self._data

    @abstractmethod
    def _read(self) -> DataSet:
        """The data set, from where it lies."""


def described(data: DataSet) -> Description:
    """The description of a data set that is in memory already."""
    tests = 0 if data.test_labels is None else len(data.test_labels)
    return Description(
        data.classes,
        data.image_shape,
        len(data.train_labels),
        len(data.validation_labels),
        tests,
        data.class_names,
    )
