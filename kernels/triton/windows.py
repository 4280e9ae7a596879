"""What the windows of 3×3 pools give back to the pixels they were made of.

Mathematics: a pixel's share is the sum of g over the windows that took their value from it: of an average
those that hold it, each divided by its pixels inside the image; of a maximum those whose first greatest
value it is.

Pixels come in pieces, ROWS × COLS of one image, whose windows share what they read. Of a maximum each pixel
is an integer, its value above its place: greater is greater or earlier, none are equal, and a window's
greatest, found by rows, then by columns, tells where it is.
"""

import triton
import triton.language as tl

from pnas_fast.kernels.triton.add import AVERAGE, MAXIMUM
from pnas_fast.kernels.triton.device import widen

PLACES = tl.constexpr(64)
"""More than pixels of a piece and the two around it: what fits below the digits of a widened value."""


@triton.constexpr_function
def first_columns(length, stride, pad):
    """Where windows that touch a piece begin, counted from its first column."""
    return [first for first in range(-2, length) if (first + pad) % stride == 0]


@triton.constexpr_function
def place_of(row, column, cols):
    """The number of a pixel of a piece or around it, less for later ones; never 0."""
    return PLACES.value - 1 - (row + 2) * (cols + 4) - column - 2


@triton.constexpr_function
def holds(first, at):
    """Whether windows that begin there hold a row or column."""
    return first <= at < first + 3


@triton.jit
def direction_of(scale, AFFINE: tl.constexpr):
    """1, 0 or -1 for channels: what the values' order is multiplied by when they are scaled."""
    direction = 1.0
    if AFFINE:
        direction = tl.where(scale > 0.0, 1.0, tl.where(scale < 0.0, -1.0, 0.0))
    return direction


@triton.jit
def key_of(value, direction, inside, PLACE: tl.constexpr):
    """Integers in the order of direction times value, the earlier place before the later; least outside."""
    # Adding 0 makes -0 equal to 0.
    ordered = widen(value) * direction + 0.0
    bits = ordered.to(tl.int32, bitcast=True)
    if value.dtype.primitive_bitwidth == 16:
        # What was widened has no low bits.
        key = bits ^ ((bits >> 31) & 0x7FFFFFC0)
        least: tl.constexpr = -(1 << 31)
    else:
        key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) * PLACES
        least: tl.constexpr = -(1 << 62)  # type: ignore[no-redef]
    return tl.where(inside, key | PLACE, least)


@triton.jit
def load_keys(
    z, image, y, x, exists, c, direction, z_pixel, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    ROW: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Keys of columns -2 … COLS + 1 of a row of pieces or around them, a tuple."""
    row = y + ROW
    keys = ()
    for column in tl.static_range(-2, COLS + 2):
        at = x + column
        inside = (exists & (row >= 0) & (row < H) & (at >= 0) & (at < W))[:, None] & (c < C)[None, :]
        place = z + (image * H * W + row * W + x)[:, None] * z_pixel + c[None, :] + column * z_pixel
        value = tl.load(place, mask=inside, other=0.0)
        key = key_of(value, direction, inside, place_of(ROW, column, COLS))
        keys = keys + (key,)  # type: ignore[assignment]
    return keys


@triton.jit
def add_greatest_of_row(rows, keys, LEFTS: tl.constexpr):
    """Append the greatest key of a row within the columns of each window to a tuple."""
    for k in tl.static_range(len(LEFTS)):
        pair = tl.maximum(keys[LEFTS[k] + 2], keys[LEFTS[k] + 3])
        rows = rows + (tl.maximum(pair, keys[LEFTS[k] + 4]),)
    return rows


@triton.jit
def share_of_window(
    g, image, top, left, oy, ox, exists, c, g_pixel, H: tl.constexpr, W: tl.constexpr,
    OH: tl.constexpr, OW: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """What a window gives to each pixel that it took its value from; 0 of a window that is not there."""
    there = exists & (oy >= 0) & (oy < OH) & (ox >= 0) & (ox < OW)
    at = (image * OH * OW + oy * OW + ox)[:, None] * g_pixel + c[None, :]
    share = widen(tl.load(g + at, mask=there[:, None] & (c < C)[None, :], other=0.0))
    if POOL == AVERAGE:
        rows = tl.minimum(top + 3, H) - tl.maximum(top, 0)
        columns = tl.minimum(left + 3, W) - tl.maximum(left, 0)
        # A window that is not there may have no pixels. Divisions are long: one for all channels.
        share *= (1.0 / tl.maximum(rows * columns, 1).to(tl.float32))[:, None]
    return share


@triton.jit
def add_share(
    totals, share, greatest, TOP: tl.constexpr, LEFT: tl.constexpr, POOL: tl.constexpr,
    COLS: tl.constexpr,
):  # fmt: skip
    """Add a window's share to those of a piece's pixels that it took its value from."""
    added = ()
    for own in tl.static_range(len(totals)):
        total = totals[own]
        if holds(TOP, own // COLS) and holds(LEFT, own % COLS):
            if POOL == MAXIMUM:
                won = greatest == place_of(own // COLS, own % COLS, COLS)
                total += tl.where(won, share, 0.0)
            else:
                total += share
        added = added + (total,)  # type: ignore[assignment]
    return added


@triton.jit
def add_windows(
    totals, g, rows, image, y, x, exists, c, g_pixel,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, PAD_Y: tl.constexpr,
    PAD_X: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr, S: tl.constexpr,
    TOP: tl.constexpr, LEFTS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Add the shares of the windows that begin in a row, the first of the last three in ``rows``."""
    for k in tl.static_range(len(LEFTS)):
        greatest = 0
        if POOL == MAXIMUM:
            pair = tl.maximum(rows[(TOP + 2) * len(LEFTS) + k], rows[(TOP + 3) * len(LEFTS) + k])
            greatest = tl.maximum(pair, rows[(TOP + 4) * len(LEFTS) + k]) & (PLACES - 1)
        share = share_of_window(
            g, image, y + TOP, x + LEFTS[k], y // S + (TOP + PAD_Y) // S, x // S + (LEFTS[k] + PAD_X) // S,
            exists, c, g_pixel, H, W, OH, OW, C, POOL,
        )  # fmt: skip
        totals = add_share(totals, share, greatest, TOP, LEFTS[k], POOL, COLS)
    return totals


@triton.jit
def take_row(
    totals, rows, z, g, image, y, x, exists, c, direction, z_pixel, g_pixel,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, PAD_Y: tl.constexpr,
    PAD_X: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr, S: tl.constexpr,
    ROW: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Read the next row of pieces or around them, ROW = -2 first; add the shares of windows that end there.

    ``totals`` has a tensor [pieces, CHUNK] fp32 for each pixel of a piece, whose row ROW - 2 then has all its
    shares. (y, x) is a piece's first pixel; S divides both.
    """
    lefts: tl.constexpr = first_columns(COLS, S, PAD_X)
    if POOL == MAXIMUM:
        keys = load_keys(z, image, y, x, exists, c, direction, z_pixel, H, W, C, ROW, COLS)
        rows = add_greatest_of_row(rows, keys, lefts)
    if ROW >= 0 and (ROW - 2 + PAD_Y) % S == 0:
        totals = add_windows(
            totals, g, rows, image, y, x, exists, c, g_pixel, H, W, OH, OW, PAD_Y, PAD_X, C,
            POOL, S, ROW - 2, lefts, COLS,
        )  # fmt: skip
    return totals, rows
