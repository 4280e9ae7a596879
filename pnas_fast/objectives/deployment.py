"""The network that a cell is for, which need not be the child that a search trains to judge it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_ENTRY = re.compile(r"(\w+)=(\d{1,7})(?:x(\d{1,7}))?", re.ASCII)
_MOST = {"repeats": 100, "filters": 4096, "batch": 65_536}
MOST_SIDE = 4096
"""Pixels of an image's side, at most."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A child's layout in the size in which it will run.

    Attributes:
        repeats: N: it has 3N cells.
        filters: F, channels of a block in its first cells.
        image_shape: (C, H, W) of its images.
        classes: outputs.
        batch: images that run at once. Counts are of one image whatever it is.
    """

    repeats: int
    filters: int
    image_shape: tuple[int, int, int]
    classes: int
    batch: int = 1

    @classmethod
    def of(cls, text: str, repeats: int, filters: int, image_shape: Sequence[int], classes: int) -> Self:
        """That of a text of `changes`, with what it leaves out as the child and its images have it.

        Raises:
            ValueError: as `changes`.
        """
        channels, height, width = image_shape
        given = changes(text)
        height, width = given.get("image", (height, width))
        repeats, _ = given.get("repeats", (repeats, 0))
        filters, _ = given.get("filters", (filters, 0))
        batch, _ = given.get("batch", (1, 0))
        return cls(repeats, filters, (channels, height, width), classes, batch)

    def __str__(self) -> str:
        _, height, width = self.image_shape
        image = str(height) if height == width else f"{height}x{width}"
        return f"repeats={self.repeats},filters={self.filters},image={image},batch={self.batch}"


def normal(text: str) -> str:
    """A text of `changes` as everybody writes it who means the same.

    Raises:
        ValueError: as `changes`.
    """
    given = changes(text)
    written = {name: str(value) for name, (value, _) in given.items()}
    if "image" in given and len(set(given["image"])) > 1:
        written["image"] = "x".join(map(str, given["image"]))
    order = ("repeats", "filters", "image", "batch")
    return ",".join(f"{name}={written[name]}" for name in order if name in given)


def changes(text: str) -> dict[str, tuple[int, int]]:
    """The entries of a text such as ``repeats=6,filters=44,image=32,batch=1``, each at most once.

    Any may be left out. An image is HxW pixels or the side of a square; of the others both numbers are the
    same.

    Raises:
        ValueError: the text is something else, or a number outside its limits.
    """
    found: dict[str, tuple[int, int]] = {}
    for part in filter(None, text.split(",")):
        match = _ENTRY.fullmatch(part.strip())
        name = match[1] if match else ""
        if match is None or name not in (*_MOST, "image") or name in found or (match[3] and name != "image"):
            raise ValueError(
                f"deploy is {text!r}: found {part!r}, allowed are repeats=N, filters=F, image=SIDE or "
                "image=HxW and batch=N, each once, joined by commas"
            )
        numbers = int(match[2]), int(match[3] or match[2])
        most = _MOST.get(name, MOST_SIDE)
        if not 1 <= min(numbers) <= max(numbers) <= most:
            size = part.partition("=")[2]
            raise ValueError(f"deploy is {text!r}: {name} is {size}, allowed are 1 to {most}")
        found[name] = numbers
    return found
