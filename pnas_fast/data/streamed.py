"""Images that are decoded whenever they are looked at, where a data set otherwise has a tensor of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]

FILE, START, BYTES, WORD = range(4)
"""Columns of rows: the file's number; where in it the image begins, and of how many bytes it is, -1 where it
is the whole file; and a number of 64 bits that the image is known by."""

_HEADER = 512  # of a member of a tar archive; it begins with the member's name
_NAME = 100

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class FileNames:
    """Names of many files in two arrays, which processes share: a million objects would be copied.

    Attributes:
        text: uint8, all names in a row, as the operating system has them.
        ends: int64, where each of them ends.
    """

    text: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Self:
        """Those of some files."""
        names = [os.fsencode(path) for path in paths]
        text = np.frombuffer(b"".join(names), np.uint8)
        return cls(text, np.cumsum([len(name) for name in names], dtype=np.int64))

    def __getitem__(self, number: int) -> str:
        start = int(self.ends[number - 1]) if number else 0
        return os.fsdecode(self.text[start : int(self.ends[number])].tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """Images in files, with as much of a tensor's interface as data sets need: ``(n, C, H, W)`` of uint8.

    Attributes:
        names: of all files.
        rows: int64 (n, 4), of each image what `WORD` and its neighbours say.
        image_shape: the (C, H, W) that all images must have, once they are resized; grey ones repeat their
            channel where C is 3.
        size: pixels of a side that images are resized to; 0 is as they are.
        loaders: processes that decode them during a training; 0 is one for each core.
        device: where batches of them are made.
    """

    names: FileNames
    rows: Rows
    image_shape: tuple[int, int, int]
    size: int = 0
    loaders: int = 0
    device: torch.device = _CPU

    dtype = torch.uint8

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: slice | npt.NDArray[np.int64]) -> Streamed:
        return replace(self, rows=self.rows[places])

    @property
    def shape(self) -> torch.Size:
        """(n, C, H, W)."""
        return torch.Size((len(self.rows), *self.image_shape))

    @property
    def is_cuda(self) -> bool:
        """Whether batches are made on a GPU."""
        return self.device.type == "cuda"

    @property
    def words(self) -> npt.NDArray[np.uint64]:
        """What each image is known by, (n,): a digest of its name and number of bytes, not of its pixels."""
        return np.ascontiguousarray(self.rows[:, WORD]).view(np.uint64)

    def to(self, device: torch.device | str) -> Streamed:
        """The same images, in batches on another device."""
        return replace(self, device=torch.device(device))

    def joined(self, other: Streamed, places: npt.NDArray[np.int64]) -> Streamed:
        """These images and then those of another part of the data set, each at its place."""
        rows = np.empty((len(places), self.rows.shape[1]), np.int64)
        rows[places] = np.concatenate([self.rows, other.rows])
        return replace(self, rows=rows)

    def raw(self, place: int) -> npt.NDArray[np.uint8]:
        """The image at a place, uint8 (H, W, C), of the size and the channels that it has by itself.

        Raises:
            PictureError: it is none.
        """
        from pnas_fast.pictures import PictureError, own_pixels, pixels_of  # here, for it imports Pillow

        number, start, size, _ = self.rows[place].tolist()
        path = self.names[number]
        if size < 0:
            return own_pixels(path, self.size)
        try:
            with open(path, "rb") as file:
                file.seek(start)
                content = file.read(size)
        except OSError as error:
            raise PictureError(f"{path}: cannot be read ({error.strerror or error})") from error
        return pixels_of(content, self.name(place), self.size)

    def image(self, place: int) -> npt.NDArray[np.uint8]:
        """The image at a place, uint8 (H, W, C) of `image_shape`.

        Raises:
            PictureError: it is none, or of another shape.
        """
        from pnas_fast.pictures import PictureError

        pixels = self.raw(place)
        channels, *sides = self.image_shape
        height, width, own = pixels.shape
        if [height, width] != sides:
            raise PictureError(
                f"{self.name(place)}: {width}x{height} pixels, the first image has {sides[1]}x{sides[0]}: "
                "--image-size makes all images one size"
            )
        if own > channels:
            raise PictureError(f"{self.name(place)}: is in colour, the first images of its data are all grey")
        return np.broadcast_to(pixels, (height, width, channels))

    def name(self, place: int) -> str:
        """What the image at a place is called, for messages."""
        number, start, size, _ = self.rows[place].tolist()
        path = self.names[number]
        if size < 0:
            return path
        try:
            with open(path, "rb") as file:
                file.seek(start - _HEADER)
                header = file.read(_NAME)
        except OSError:
            return path
        return f"{path}: {os.fsdecode(header.rstrip(bytes(1)))}"

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays into a folder, for `load`; the rest, as JSON has it."""
        folder.mkdir(exist_ok=True)
        for name, array in (("text", self.names.text), ("ends", self.names.ends), ("rows", self.rows)):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return {"image_shape": self.image_shape, "size": self.size, "loaders": self.loaders}

    @classmethod
    def load(cls, folder: Path, rest: dict[str, Any]) -> Streamed:
        """What `save` wrote; its pages are in memory once for all processes that load it."""
        text, ends, rows = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("text", "ends", "rows")
        )
        channels, height, width = rest["image_shape"]
        return cls(FileNames(text, ends), rows, (channels, height, width), rest["size"], rest["loaders"])
