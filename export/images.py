"""Image files, as a network takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files of a folder with other endings are not images."""

Pixels = npt.NDArray[np.uint8]

_MODES = {1: "L", 3: "RGB"}


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and the images in the folders among them, sorted folder by folder.

    Raises:
        ExportError: a path that does not exist, or a folder without an image.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if item.suffix.lower() in SUFFIXES)
            if not inside:
                raise ExportError(f"{path}: holds no image, looked for {' '.join(SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ExportError(f"{path}: no such file or folder, expected an image or a folder of them")
    return found


def read_pixels(paths: Sequence[Path], images: ImageFormat) -> Pixels:
    """Image files cropped and resized: uint8 (n, H, W, C).

    Raises:
        ExportError: a file that is no image, or a network of neither one nor three channels.
    """
    return np.stack([_read(path, images) for path in paths])


def _read(path: Path, images: ImageFormat) -> Pixels:
    if images.channels not in _MODES:
        raise ExportError(f"the network takes {images.channels} channels, image files have 1 or 3")
    try:
        with Image.open(path) as file:
            # A camera's file may say which way up it is.
            picture = ImageOps.exif_transpose(file).convert(_MODES[images.channels])
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ExportError(f"{path}: cannot be read as an image ({error})") from error
    scale = images.crop * min(picture.width / images.width, picture.height / images.height)
    width, height = scale * images.width, scale * images.height
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, left + width, top + height)
    resized = picture.resize((images.width, images.height), Image.Resampling.BILINEAR, box)
    return np.asarray(resized, np.uint8).reshape(images.height, images.width, images.channels)


def as_input(pixels: Pixels, images: ImageFormat, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Pixels (n, H, W, C) as a file's input: themselves for uint8, else normalised (n, C, H, W)."""
    if dtype == np.uint8:
        return pixels
    mean, std = (np.asarray(values, np.float32) * np.float32(255) for values in (images.mean, images.std))
    normalised = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
