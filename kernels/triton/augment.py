"""Images of a batch, chosen, cropped, mirrored and normalised in one pass.

Mathematics, shapes and types:
    those of `pnas_fast.kernels.augment.augment`. Values are looked up in the table, so results have the
    same bits as everywhere else.

Grid:
    (pieces of PIECE values of an image, images of the batch).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.triton.launch import Tile, launch

TILE = Tile(warps=4, registers=None, programs=8)
PIECE = tl.constexpr(1024)
COLUMNS = tl.constexpr(6)


@triton.jit(do_not_specialize=["known", "height", "width", "padding", "cutout"])
def augment_kernel(images, rows, table, out, known, height, width, padding, cutout, C: tl.constexpr):
    """See the top of the file."""
    row = rows + tl.program_id(1) * COLUMNS
    size = height * width * C
    value = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    c, x, y = value % C, value // C % width, value // C // width
    first_y = tl.load(row + 4) - cutout // 2
    first_x = tl.load(row + 5) - cutout // 2
    square = (y >= first_y) & (y < first_y + cutout) & (x >= first_x) & (x < first_x + cutout)
    from_y = y + tl.load(row + 1) - padding
    from_x = tl.where(tl.load(row + 3) == 1, width - 1 - x, x) + tl.load(row + 2) - padding
    inside = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width) & (value < size)
    # A data set may hold more than 2**31 values.
    # A replay's rows were looked at by nobody.
    number = tl.load(row)
    inside = inside & (number >= 0) & (number < known)
    image = images + number.to(tl.int64) * size
    level = tl.load(image + (from_y * width + from_x) * C + c, mask=inside, other=0).to(tl.int32)
    result = tl.load(table + c * 256 + level, mask=inside & (square == 0), other=0.0)
    tl.store(out + tl.program_id(1).to(tl.int64) * size + value, result, mask=value < size)


def augment(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int, out: Tensor) -> None:
    """Launch it; writes to ``out``. See `pnas_fast.kernels.augment.augment`."""
    batch, channels, height, width = out.shape
    launch(
        augment_kernel, (-(-channels * height * width // PIECE.value), batch), TILE,
        reads=(images[:batch],), writes=(out,),
        images=images, rows=rows, table=table, out=out,
        known=len(images), height=height, width=width, padding=padding, cutout=cutout, C=channels,
    )  # fmt: skip
