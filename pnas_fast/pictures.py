"""One image file, whoever it is from: eight bits a channel, the right way up."""

from __future__ import annotations

import os
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pnas_fast.foreign import reading, reason, refusing

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is read, whatever a file is called: Pillow has readers of many more, some of which start programs."""

MOST_PIXELS = 2**27
"""Of an image: 134 million, which take half a gigabyte while they are resized."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's names of an image's channels."""

_GREY = ("1", "L", "LA", "La", "F")
_FAULT = "cannot be read as an image"
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF


class PictureError(ValueError):
    """An image file that is refused; the message names it."""


def open_picture(path: str | os.PathLike[str], channels: int) -> Image.Image:
    """The first image of a file, turned as it says, of 1 channel (mode L) or 3 (RGB).

    Grey values of 16 bits are divided by 257, those of 12 bits in TIFF by 16.06; of floats, 0 is black and 1
    is white. Other floats, and 32-bit integers, are refused: nobody knows what is white in them. An alpha
    channel is dropped.

    Raises:
        PictureError: not a regular file, another format, too many pixels, or whatever its reader raises.
    """
    with reading(path, PictureError, _FAULT):
        return _opened(path, path, channels)


def own_pixels(path: str | os.PathLike[str], size: int) -> npt.NDArray[np.uint8]:
    """The first image of a file as uint8 (H, W, C): C is 1 where it is grey, else 3, for palettes too.

    It may be called by several threads at once, inside of one `pnas_fast.foreign.silence`.

    Args:
        path: of the file.
        size: pixels of the shorter side, to which it is resized (antialiased) and of which it is then the
            square in the middle; 0 leaves it as it is.

    Raises:
        PictureError: as `open_picture`.
    """
    with refusing(path, PictureError, _FAULT):
        return _pixels(path, path, size)


def pixels_of(content: bytes, name: str, size: int) -> npt.NDArray[np.uint8]:
    """As `own_pixels`, of an image whose file lies inside of another.

    Args:
        content: of the image's file.
        name: of the image, for messages.
        size: see `own_pixels`.

    Raises:
        PictureError: as `own_pixels`.
    """
    try:
        return _pixels(BytesIO(content), name, size)
    except PictureError:
        raise
    except UnidentifiedImageError as error:  # which says where in memory the content lies
        raise PictureError(f"{name}: {_FAULT} (of no format that is read)") from error
    except Exception as error:
        raise PictureError(f"{name}: {_FAULT} ({reason(error)})") from error


def _pixels(
    source: str | os.PathLike[str] | BytesIO, name: str | os.PathLike[str], size: int
) -> npt.NDArray[np.uint8]:
    picture = _opened(source, name, None)
    if size:
        picture = _squared(picture, size)
    pixels = np.asarray(picture, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _opened(
    source: str | os.PathLike[str] | BytesIO, path: str | os.PathLike[str], channels: int | None
) -> Image.Image:
    with Image.open(source, formats=FORMATS) as file:
        if file.width * file.height > MOST_PIXELS:
            raise PictureError(
                f"{path}: {file.width:,}×{file.height:,} pixels, allowed are {MOST_PIXELS:,} in all"
            )
        most = _white(file)
        # A camera's file may say which way up it is. In place, since a copy costs as much as some decoding.
        ImageOps.exif_transpose(file, in_place=True)
        if channels is None:
            channels = 1 if file.mode in _GREY or most is not None else 3
        picture: Image.Image = file
        if most is not None:
            picture = _eight_bits(path, file, most, inverted=_tag(file, _PHOTOMETRIC) == _WHITE_IS_ZERO)
        return picture if picture.mode == MODES[channels] else picture.convert(MODES[channels])


def _squared(picture: Image.Image, size: int) -> Image.Image:
    """The square in the middle, as wide as the shorter side, resized; that is the same and costs less."""
    side = min(picture.size)
    left, top = ((whole - side) / 2 for whole in picture.size)
    box = left, top, left + side, top + side
    return picture.resize((size, size), Image.Resampling.BILINEAR, box)


def _white(file: Image.Image) -> int | None:
    """The value of white in an image of more than eight bits; None where those are all."""
    if file.mode in _SIXTEEN_BITS:
        return 4095 if _tag(file, _BITS) == (12,) else 65535
    if file.mode == "F":
        return 1
    # Older versions of Pillow read 16 bits of PNG as 32.
    if file.mode == "I" and file.format == "PNG":
        return 65535
    if file.mode.startswith("I"):
        raise ValueError("32-bit integers, allowed are 8 and 16 bits, and floats from 0 to 1")
    return None


def _eight_bits(
    path: str | os.PathLike[str], picture: Image.Image, white: int, *, inverted: bool
) -> Image.Image:
    values: npt.NDArray[np.float64] = np.asarray(picture).astype(np.float64)
    least, greatest = float(values.min()), float(values.max())
    # Written so that NaN fails.
    if not (least >= 0 and greatest <= white):
        raise PictureError(f"{path}: values from {least:g} to {greatest:g}, allowed are 0 to {white:,}")
    levels = np.rint(values * (255 / white)).astype(np.uint8)
    return Image.fromarray(255 - levels if inverted else levels)


def _tag(file: Image.Image, number: int) -> object:
    """A tag of a TIFF file; None for other files."""
    return getattr(file, "tag_v2", {}).get(number)
