"""Images of a batch, chosen, cropped, mirrored and normalised in one pass, on every device."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from pnas_fast.kernels.backend import BackendError
from pnas_fast.kernels.refusals import FLOATS, check_tensor, is_whole, lies, refuse

LEVELS = 256
"""Values of a byte."""

FARTHEST = 1 << 20
"""Pixels that images are padded by, or that are blanked out, at most."""


def augment(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """A batch made from the images of a data set.

    Value (c, y, x) of image i of the batch, whose row is (image, top, left, mirror, cy, cx), is
    ``table[c, images[image, c, y', x']]`` with ``y' = y + top - padding`` and
    ``x' = (W - 1 - x if mirror else x) + left - padding``; it is 0 where (y', x') is outside the image, and
    in the square ``cy - cutout // 2 <= y < cy - cutout // 2 + cutout``, x likewise (DeVries & Taylor 2017).

    Args:
        images: uint8 (n, C, H, W) in NHWC memory.
        rows: int32 (b, 6), contiguous; top and left in [0, 2 padding].
        table: (C, 256), contiguous, of a floating-point type: the value of each level of each channel.
        padding: of the images, in pixels on every side.
        cutout: the square's side in pixels; 0 is none.

    Returns:
        (b, C, H, W) in NHWC memory, of the table's type.

    Raises:
        BackendError: other shapes, types, devices or strides; a row of an image or a crop that there is not.
            While a CUDA graph is captured rows cannot be read; its replays give zeros for such images.
    """
    _check(images, rows, table, padding, cutout)
    _, channels, height, width = images.shape
    shape = len(rows), channels, height, width
    out = torch.empty(shape, dtype=table.dtype, device=images.device, memory_format=torch.channels_last)
    if images.is_cuda:
        # Importing Triton takes a second, which a CPU need not wait for.
        from pnas_fast.kernels.triton.augment import augment as augment_triton

        if not torch.cuda.is_current_stream_capturing():
            _check_rows(rows, len(images), padding)
        augment_triton(images, rows, table, padding, cutout, out)
    else:
        _augment_cpu(images, rows, table, padding, cutout, out)
    return out


def _augment_cpu(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int, out: Tensor) -> None:
    if find_spec("pnas_fast._cpu_kernels") is None:  # the eager backend needs nothing compiled
        out.copy_(augment_eager(images, rows, table, padding, cutout))
        return
    from pnas_fast.kernels.cpu import augment as augment_compiled

    try:
        augment_compiled(images, rows, table, padding, cutout, out)
    except ValueError as error:
        raise BackendError(str(error)) from error


def augment_eager(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """`augment` in plain PyTorch: the oracle, bit for bit."""
    _check(images, rows, table, padding, cutout)
    _check_rows(rows, len(images), padding)
    _, channels, height, width = images.shape
    image, top, left, mirror, centre_y, centre_x = rows.long().unbind(1)
    y = torch.arange(height, device=images.device).expand(len(rows), height)
    x = torch.arange(width, device=images.device).expand(len(rows), width)
    square = _within(y, centre_y, cutout)[:, :, None] & _within(x, centre_x, cutout)[:, None, :]
    x = torch.where(mirror[:, None] == 1, width - 1 - x, x)
    y, x = y + (top - padding)[:, None], x + (left - padding)[:, None]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    levels = images.permute(0, 2, 3, 1)[image[:, None, None], y[:, :, None], x[:, None, :]]
    values = table[torch.arange(channels, device=images.device), levels.long()]
    return values.masked_fill((square | ~inside)[..., None], 0.0).permute(0, 3, 1, 2)


def _check(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int) -> None:
    """The arguments of `augment`, but for what rows say."""
    who = "augment"
    check_tensor(who, "images", images, (torch.uint8,), None)
    if images.ndim != 4 or 0 in images.shape:
        refuse(who, "images' shape", tuple(images.shape), "(n, C, H, W), each 1 or more")
    if not images.is_contiguous(memory_format=torch.channels_last):
        refuse(who, "images' memory", lies(images), "NHWC memory (torch.channels_last)")
    channels = images.shape[1]
    check_tensor(who, "rows", rows, (torch.int32,), images.device)
    if rows.ndim != 2 or rows.shape[1] != 6 or not len(rows):
        refuse(who, "rows' shape", tuple(rows.shape), "(b, 6), b 1 or more")
    check_tensor(who, "the table", table, FLOATS, images.device)
    if tuple(table.shape) != (channels, LEVELS):
        refuse(who, "the table's shape", tuple(table.shape), f"({channels}, {LEVELS})")
    for name, tensor in (("rows'", rows), ("the table's", table)):
        if not tensor.is_contiguous():
            refuse(who, f"{name} memory", lies(tensor), "contiguous memory")
    for name, value in (("padding", padding), ("cutout", cutout)):
        if not is_whole(value, 0, FARTHEST):
            refuse(who, name, value, f"0 to {FARTHEST:,}")


def _check_rows(rows: Tensor, images: int, padding: int) -> None:
    """What rows say; waits for their device."""
    most = torch.tensor([images - 1, 2 * padding, 2 * padding], dtype=rows.dtype, device=rows.device)
    first = rows[:, :3]
    wrong = ((first < 0) | (first > most)).any(1)
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        found, allowed = tuple(first[place].tolist()), f"up to {tuple(most.tolist())}"
        refuse("augment", f"row {place} (image, top, left)", found, allowed)


def _within(place: Tensor, centre: Tensor, cutout: int) -> Tensor:
    first = (centre - cutout // 2)[:, None]
    return (place >= first) & (place < first + cutout)
