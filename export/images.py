"""Image files, as a network takes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.foreign import PICTURE_SUFFIXES, reading
from pnas_fast.pictures import MODES, PictureError, open_picture

NAMED = 3
"""Files that a message about many of them names."""

Pixels = npt.NDArray[np.uint8]


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and the images in the folders among them, sorted folder by folder.

    Links are followed, to each folder once. Hidden files and folders, whose names begin with a dot, are left
    out unless they are among ``paths``.

    Raises:
        ExportError: a path that does not exist, a folder that cannot be read, or one without an image.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(_inside(path))
            if not inside:
                raise ExportError(f"{path}: holds no image, looked for {' '.join(PICTURE_SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ExportError(f"{path}: no such file or folder, expected an image or a folder of them")
    return found


def _inside(top: Path) -> Iterator[Path]:
    """The images below a folder; folders that only links lead to come after all others."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    for start in waiting:
        for folder, folders, names in os.walk(start, onerror=_refuse):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += [here / name for name in folders if (here / name).is_symlink()]
            for name in names:
                if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                    yield here / name


def _refuse(error: OSError) -> None:
    raise ExportError(f"{error.filename}: cannot be searched for images ({error.strerror})") from error


def read_pixels(paths: Sequence[Path], images: ImageFormat) -> Pixels:
    """Image files cropped and resized: uint8 (n, H, W, C).

    Raises:
        ExportError: files that are refused, counted and the first of them named, or a network of neither one
            nor three channels.
    """
    refused: list[PictureError] = []
    pixels = [picture for _, picture in readable(paths, images, refused.append)]
    if refused:
        more = len(refused) - NAMED
        told = "; ".join(map(str, refused[:NAMED])) + (f"; and {more:,} more" if more > 0 else "")
        counted = f"{len(refused):,} of {len(paths):,} images are refused: " if len(paths) > 1 else ""
        raise ExportError(counted + told)
    return np.stack(pixels)


def check_channels(channels: int) -> None:
    """Raise `ExportError` where image files cannot be what a network takes."""
    if channels not in MODES:
        raise ExportError(f"the network takes {channels} channels, image files have 1 or 3")


def readable(
    paths: Iterable[Path], images: ImageFormat, refused: Callable[[PictureError], None]
) -> Iterator[tuple[Path, Pixels]]:
    """Those of the files that are images, each cropped and resized: uint8 (H, W, C).

    Args:
        paths: of the files.
        images: what the network takes.
        refused: told of every other file.

    Raises:
        ExportError: a network of neither one nor three channels.
    """
    check_channels(images.channels)
    for path in paths:
        try:
            pixels = _read(path, images)
        except PictureError as error:
            refused(error)
        else:
            yield path, pixels


def _read(path: Path, images: ImageFormat) -> Pixels:
    picture = open_picture(path, images.channels)
    with reading(path, PictureError, "cannot be resized"):
        size = images.width, images.height
        resized = picture.resize(size, Image.Resampling.BILINEAR, crop_box(picture.size, images))
        return np.asarray(resized, np.uint8).reshape(images.height, images.width, images.channels)


def crop_box(size: tuple[int, int], images: ImageFormat) -> tuple[float, float, float, float]:
    """The part of an image (width, height) that a network sees: left, top, right, bottom, inside of it."""
    whole_width, whole_height = size
    scale = images.crop * min(whole_width / images.width, whole_height / images.height)
    # Products and differences of floats may end a little outside of the image.
    width, height = min(scale * images.width, whole_width), min(scale * images.height, whole_height)
    left, top = max((whole_width - width) / 2, 0.0), max((whole_height - height) / 2, 0.0)
    return left, top, min(left + width, whole_width), min(top + height, whole_height)


def as_input(pixels: Pixels, images: ImageFormat, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Pixels (n, H, W, C) as a file's input: themselves for uint8, else normalised (n, C, H, W)."""
    if dtype == np.uint8:
        return pixels
    mean, std = (np.asarray(values, np.float32) * np.float32(255) for values in (images.mean, images.std))
    normalised = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
