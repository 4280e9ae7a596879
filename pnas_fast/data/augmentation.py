"""How training images are augmented: as their data set says, or as somebody asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pnas_fast.cli.options import SWITCH, ConfigError
from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.source import Source
from pnas_fast.protocols import DataSource


class Augmented(Source):
    """Another source's images, augmented otherwise.

    Args:
        source: of the images.
        flip: one of `SWITCH`: yes, no, or auto, which is as the data set says.
        crop_padding: pixels that crops move by; -1 is as the data set says.

    Raises:
        DataError: when it is opened: crops that could show nothing of an image.
    """

    def __init__(self, source: DataSource, flip: str, crop_padding: int) -> None:
        super().__init__(source.name)
        self._source, self._flip, self._padding = source, flip, crop_padding

    def describe(self) -> Any:
        """Of the data set; augmentation changes nothing of it."""
        return self._source.describe()

    def _read(self) -> DataSet:
        data: DataSet = self._source.open()
        side = min(data.image_shape[1:])
        if self._padding >= side:
            height, width = data.image_shape[1:]
            raise DataError(
                f"--crop-padding {self._padding} on images of {height}×{width}, allowed is 0 to {side - 1}"
            )
        padding = data.crop_padding if self._padding < 0 else self._padding
        flip = data.flip if self._flip == SWITCH[0] else self._flip == SWITCH[1]
        return replace(data, crop_padding=padding, flip=flip)


def augmented(source: DataSource, flip: str = SWITCH[0], crop_padding: int = -1) -> DataSource:
    """The source itself where nothing is asked for, else an `Augmented` one."""
    return source if flip == SWITCH[0] and crop_padding < 0 else Augmented(source, flip, crop_padding)


def check_cutout(data: DataSet, cutout: int) -> None:
    """Raise `ConfigError` where cutout could blank out a whole image."""
    height, width = data.image_shape[1:]
    side = min(height, width)
    if cutout and cutout >= side:
        raise ConfigError(f"cutout is {cutout} on images of {height}×{width}, allowed is 0 to {side - 1}")


def in_words(crop_padding: int, flip: bool, cutout: int = 0) -> str:
    """``crops move by 4, mirrored at random, cutout of 8``, in pixels."""
    mirrored = "mirrored at random" if flip else "not mirrored"
    square = f", cutout of {cutout}" if cutout else ""
    return f"crops move by {crop_padding}, {mirrored}{square}"
