"""What images a network takes, and an exported file's description of it."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
from msgspec import Meta

from pnas_fast.data import DataSet
from pnas_fast.export.errors import ExportError
from pnas_fast.foreign import reason
from pnas_fast.zoo import MODELS

LONGEST_SIDE = 4096
"""Pixels of an image along an axis."""

MOST_VALUES = 2**30
"""Of a batch: 4 GiB of floats."""

_Channels = Annotated[int, Meta(ge=1, le=1024)]
_Side = Annotated[int, Meta(ge=1, le=LONGEST_SIDE)]
_Share = Annotated[float, Meta(ge=0.01, le=1)]
_Level = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Spread = Annotated[float, Meta(ge=1e-6, le=1e6)]


class ImageFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an image goes through before a network sees it.

    The middle ``crop`` of the largest rectangle of the right proportions is resized (bilinear) to
    height × width; of values in [0, 1], ``mean`` is subtracted, and the rest divided by ``std``, per channel.
    """

    channels: _Channels
    height: _Side
    width: _Side
    crop: _Share
    mean: tuple[_Level, ...]
    std: tuple[_Spread, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def to_json(self) -> str:
        """As one line of text."""
        return json.dumps(msgspec.structs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ImageFormat:
        """Read what `to_json` wrote, or what somebody else did.

        Raises:
            ExportError: text of another kind, or a value outside its limits.
        """
        try:
            found = msgspec.json.decode(text, type=cls)
        except Exception as error:
            raise ExportError(
                f"preprocessing {text[:80]!r}: not one of an export ({reason(error)})"
            ) from error
        if not len(found.mean) == len(found.std) == found.channels:
            raise ExportError(
                f"preprocessing {text[:80]!r}: expected a mean and a std of each of its channels"
            )
        return found

    def check_batch(self, count: int) -> None:
        """Raise `ExportError` where so many images at a time are more than fits into memory."""
        most = MOST_VALUES // (self.channels * self.height * self.width)
        if count > most:
            raise ExportError(
                f"batch of {count:,} images of {self.height}×{self.width}, allowed are up to {most:,}"
            )


def of_data(data: DataSet) -> ImageFormat:
    """Of a network trained on a data set."""
    mean, std = (tuple((statistic.double() / 255).tolist()) for statistic in (data.mean, data.std))
    return ImageFormat(*data.image_shape, crop=1.0, mean=mean, std=std)


def of_model(name: str | None, shape: tuple[int, int, int]) -> ImageFormat:
    """Of a published network, or of one that nothing is known about: [0, 1] to [-1, 1]."""
    known = MODELS[name].preprocessing if name in MODELS else None
    if known is not None and shape[0] == len(known.mean):
        return ImageFormat(*shape, crop=known.crop, mean=known.mean, std=known.std)
    middle = (0.5,) * shape[0]
    return ImageFormat(*shape, crop=1.0, mean=middle, std=middle)
