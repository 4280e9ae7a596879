"""What images a network takes, and an exported file's description of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from pnas_fast.data import DataSet
from pnas_fast.export.errors import ExportError
from pnas_fast.zoo import MODELS


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """What an image goes through before a network sees it.

    The middle ``crop`` of the largest rectangle of the right proportions is resized (bilinear) to
    height × width; of values in [0, 1], ``mean`` is subtracted, and the rest divided by ``std``, per channel.
    """

    channels: int
    height: int
    width: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def to_json(self) -> str:
        """As one line of text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ImageFormat:
        """Read what `to_json` wrote.

        Raises:
            ExportError: text of another kind.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            found = cls(**values | {name: tuple(map(float, values[name])) for name in ("mean", "std")})
        except (ValueError, TypeError, KeyError) as error:
            raise ExportError(f"preprocessing {text[:80]!r}: not one of an export ({error})") from error
        if not len(found.mean) == len(found.std) == found.channels or min(found.std, default=0) <= 0:
            raise ExportError(
                f"preprocessing {text[:80]!r}: expected a mean and a std above 0 for each of its channels"
            )
        return found


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
