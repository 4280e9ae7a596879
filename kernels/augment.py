"""Images of a batch, chosen, cropped, mirrored and normalised in one pass, on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from pnas_fast.kernels.cpu import augment as augment_cpu


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
    """
    _, channels, height, width = images.shape
    shape = len(rows), channels, height, width
    out = torch.empty(shape, dtype=table.dtype, device=images.device, memory_format=torch.channels_last)
    if images.is_cuda:
        # Importing Triton takes a second, which a CPU need not wait for.
        from pnas_fast.kernels.triton.augment import augment as augment_triton

        augment_triton(images, rows, table, padding, cutout, out)
    else:
        augment_cpu(images, rows, table, padding, cutout, out)
    return out


def augment_eager(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int) -> Tensor:
    """`augment` in plain PyTorch: the oracle, bit for bit."""
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


def _within(place: Tensor, centre: Tensor, cutout: int) -> Tensor:
    first = (centre - cutout // 2)[:, None]
    return (place >= first) & (place < first + cutout)
