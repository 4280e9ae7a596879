"""Depthwise convolution of strips, forward and transposed: what both kernels of a separable half are made of.

A tile is two rows of LANES strips of COLS columns each; a strip never crosses an image. Every loaded value
serves all outputs of its strip that it reaches, up to 2 COLS of them.

Mathematics, of outputs o (row or column, counted from the strip's first) and inputs q (counted from where
the launcher's y, x point), both ways by one rule: o takes tap j of q where
    forward     j D = q - S o,
    transposed  j D = PAD + o - S q.
"""

import triton
import triton.language as tl

from pnas_fast.kernels.triton.device import CHUNK, activate


@triton.jit
def load_tap(
    weights, i, j, exists, c, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, ARRANGED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Weights of tap (i, j), a copy for each lane: loaded as the activations are, without an exchange."""
    lanes = tl.zeros((LANES, 1), tl.int32)
    if ARRANGED:
        at = (i * K + j) * C + c[None, :] + lanes
    else:
        at = i * by_y + j * by_x + c[None, :] * by_c + lanes
    return tl.load(weights + at, mask=(c < C)[None, :] & exists, other=0.0).to(tl.float32)


@triton.jit
def load_columns(
    values, source, row, x, row_ok, c, scale, shift, W, pixel, C: tl.constexpr,
    FIRST: tl.constexpr, END: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
):  # fmt: skip
    """Append columns x + FIRST … x + END - 1 of a row to a tuple of [LANES, CHUNK] fp32."""
    for column in tl.static_range(FIRST, END):
        at = x + column
        mask = (row_ok & (at >= 0) & (at < W))[:, None] & (c < C)[None, :]
        value = tl.load(source + (row + at)[:, None] * pixel + c[None, :], mask=mask, other=0.0)
        value = activate(value, mask, scale, shift, AFFINE, RECTIFY)
        values = values + (value,)
    return values


@triton.jit
def add_tap(
    totals, values, weight, J: tl.constexpr, D: tl.constexpr, S: tl.constexpr, PAD: tl.constexpr,
    FIRST: tl.constexpr, COLS: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Add tap J's share to each column of a strip."""
    added = ()
    for o in tl.static_range(COLS):
        total = totals[o]
        if not TRANSPOSED:
            total += weight * values[J * D + S * o - FIRST]
        elif (PAD + o - J * D) % S == 0:
            total += weight * values[(PAD + o - J * D) // S - FIRST]
        added = added + (total,)  # type: ignore[assignment]
    return added


@triton.jit
def take_tap(
    upper, lower, values, source, weights, row, x, row_ok, c, scale, shift, W, pixel,
    tap, tap_ok, below, below_ok, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, J: tl.constexpr, S: tl.constexpr, D: tl.constexpr, PAD: tl.constexpr,
    TRANSPOSED: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Add the shares of column J of the taps to both rows, first loading what columns it lacks.

    Loaded one column before it is taken, few wait in registers.
    """
    first: tl.constexpr = -(((K - 1) * D - PAD) // S) if TRANSPOSED else 0
    end: tl.constexpr = ((PAD + COLS - 1 - J * D) // S if TRANSPOSED else J * D + S * (COLS - 1)) + 1
    values = load_columns(
        values, source, row, x, row_ok, c, scale, shift, W, pixel, C,
        first + len(values), end, AFFINE, RECTIFY,
    )  # fmt: skip
    weight = load_tap(weights, tap, J, tap_ok, c, by_c, by_y, by_x, C, K, ARRANGED, LANES)
    upper = add_tap(upper, values, weight, J, D, S, PAD, first, COLS, TRANSPOSED)
    weight = load_tap(weights, below, J, below_ok, c, by_c, by_y, by_x, C, K, ARRANGED, LANES)
    lower = add_tap(lower, values, weight, J, D, S, PAD, first, COLS, TRANSPOSED)
    return upper, lower, values


@triton.jit
def convolve(
    source, weights, image, y, x, lane_ok, c, scale, shift, H, W, pixel, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, TRANSPOSED: tl.constexpr,
    AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Two rows of strips, two tuples of COLS tensors [LANES, CHUNK] fp32.

    (y, x) is the input pixel from which q counts; PAD_Y and PAD_X are for transposed ones.
    """
    reach: tl.constexpr = (K - 1) * D
    first_row: tl.constexpr = -((reach - PAD_Y) // S) if TRANSPOSED else 0
    end_row: tl.constexpr = ((PAD_Y + 1) // S if TRANSPOSED else reach + S) + 1
    upper, lower = (), ()
    for _ in tl.static_range(COLS):
        upper = upper + (tl.zeros((LANES, CHUNK), tl.float32),)  # type: ignore[assignment]
        lower = lower + (tl.zeros((LANES, CHUNK), tl.float32),)  # type: ignore[assignment]
    for row in range(first_row, end_row):
        at = y + row
        row_ok = lane_ok & (at >= 0) & (at < H)
        # Rows of the dilated kernel; those between its taps, above and below it do not exist.
        tap = PAD_Y - S * row if TRANSPOSED else row
        below = tap + 1 if TRANSPOSED else tap - S
        tap_ok = (tap >= 0) & (tap <= reach) & (tap % D == 0)
        below_ok = (below >= 0) & (below <= reach) & (below % D == 0)
        values = ()
        for turn in tl.static_range(K):
            upper, lower, values = take_tap(
                upper, lower, values, source, weights, image + at * W, x, row_ok, c, scale, shift, W, pixel,
                tap // D, tap_ok, below // D, below_ok, by_c, by_y, by_x,
                C, K, K - 1 - turn if TRANSPOSED else turn, S, D, PAD_X, TRANSPOSED, AFFINE, RECTIFY,
                ARRANGED, LANES, COLS,
            )  # fmt: skip
    return upper, lower


@triton.jit
def place_in_tile(LANES: tl.constexpr, COLS: tl.constexpr):
    """(strip, row, column of the strip) of each pixel of a tile, [2 LANES COLS] each; see `stack`."""
    place = tl.arange(0, 2 * LANES * COLS)
    return place // COLS % LANES, place // (COLS * LANES), place % COLS


@triton.jit
def stack(upper, lower, LANES: tl.constexpr, COLS: tl.constexpr):
    """Two rows of strips, tuples of [LANES, CHUNK], as one tensor [2 LANES COLS, CHUNK].

    A row's pixels stand side by side as they do in the image.
    """
    if COLS == 4:
        above = tl.join(tl.join(upper[0], upper[1]), tl.join(upper[2], upper[3]))
        below = tl.join(tl.join(lower[0], lower[1]), tl.join(lower[2], lower[3]))
        both = tl.permute(tl.join(above, below), (4, 0, 3, 2, 1))
    else:
        tl.static_assert(COLS == 2)
        both = tl.join(tl.join(upper[0], upper[1]), tl.join(lower[0], lower[1]))
        both = tl.permute(both, (3, 0, 2, 1))
    return tl.reshape(both, (2 * LANES * COLS, CHUNK))
