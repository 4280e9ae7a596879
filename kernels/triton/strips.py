"""Depthwise convolution of strips, forward and transposed: what both kernels of a separable half are made of.

A tile is two rows of LANES strips of COLS columns each; a strip never crosses an image. Every loaded value
serves all outputs of its strip that it reaches, up to 2 COLS of them. A tile's rows stand side by side, or
as far apart as a dilated window's taps do: side by side they would share no inputs.

Mathematics, of outputs o (row or column, counted from the strip's first) and inputs q (counted from where
the launcher's y, x point), both ways by one rule: o takes tap j of q where
    forward     j D = q - S o,
    transposed  j D = PAD + o - S q.
"""

import triton
import triton.language as tl

from pnas_fast.kernels.triton.device import CHUNK, nothing, rectify, widen


@triton.jit
def load_tap(
    weights, i, j, c, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, ARRANGED: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Weights of tap (i, j), a copy for each lane: loaded as the activations are, without an exchange."""
    lanes = tl.zeros((LANES, 1), tl.int32)
    if WIDTH > 0:
        # What all of a row of taps share comes first: the rest of an address is then part of the instruction.
        if ARRANGED:
            row = weights + i * (K * C) + (c[None, :] + lanes)
            return tl.load(row + j * C).to(tl.float32)
        row = weights + i * by_y + (c[None, :] * by_c + lanes)
        return tl.load(row + j * by_x).to(tl.float32)
    if ARRANGED:
        at = (i * K + j) * C + c[None, :] + lanes
    else:
        at = i * by_y + j * by_x + c[None, :] * by_c + lanes
    return tl.load(weights + at, mask=(c < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def outside_of(scale, AFFINE: tl.constexpr):
    """(scale, what a pixel outside of the image is read as), [1, channels] each: activated it is 0.

    Such a pixel is infinitely far on the side that ReLU takes, which is none where the scale is 0: there the
    scale returned is next to nothing.
    """
    outside = 0.0
    if AFFINE:
        scale = tl.where(scale == 0.0, 1e-30, scale)
        outside = tl.where(scale > 0.0, float("-inf"), float("inf"))
    return scale, outside


@triton.jit
def load_columns(
    values, source, row, x, row_ok, c, scale, shift, outside, W, pixel, C: tl.constexpr,
    FIRST: tl.constexpr, END: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    S: tl.constexpr = 1, PAD: tl.constexpr = 0, COLS: tl.constexpr = 1, WIDTH: tl.constexpr = 0,
):  # fmt: skip
    """Append columns x + FIRST … x + END - 1 of a row to a tuple of [LANES, channels] fp32.

    The last four are for `always_inside`.
    """
    for column in tl.static_range(FIRST, END):
        at = x + column
        mask = (row_ok & (at >= 0) & (at < W))[:, None]
        if not whole_chunks(C, c.shape[0]):
            mask = mask & (c < C)[None, :]
        # Columns are a step apart, added to addresses: most of an address is the same for all of a row.
        place = source + (row + x)[:, None] * pixel + c[None, :] + column * pixel
        if AFFINE and always_inside(column, S, PAD, COLS, WIDTH, W):
            value = tl.load(place)
        elif AFFINE:
            other = tl.broadcast_to(outside, place.shape).to(source.dtype.element_ty)
            value = tl.load(place, mask=mask, other=other)
        else:
            value = tl.load(place, mask=mask, other=0.0)
        value = widen(value)
        if AFFINE:
            value = value * scale + shift
        values = values + (rectify(value) if RECTIFY else value,)
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
    upper, lower, values, source, weights, row, x, row_ok, c, scale, shift, outside, W, pixel,
    tap, below, by_c, by_y, by_x, C: tl.constexpr, K: tl.constexpr, J: tl.constexpr, S: tl.constexpr,
    D: tl.constexpr, PAD: tl.constexpr, TRANSPOSED: tl.constexpr, AFFINE: tl.constexpr,
    RECTIFY: tl.constexpr, ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
    WIDTH: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Add the shares of column J of the taps to the rows of a part, first loading what columns it lacks.

    Loaded one column before it is taken, few wait in registers.
    """
    first: tl.constexpr = -(((K - 1) * D - PAD) // S) if TRANSPOSED else 0
    end: tl.constexpr = ((PAD + COLS - 1 - J * D) // S if TRANSPOSED else J * D + S * (COLS - 1)) + 1
    values = load_columns(
        values, source, row, x, row_ok, c, scale, shift, outside, W, pixel, C,
        first + len(values), end, AFFINE, RECTIFY, S, PAD, COLS, WIDTH,
    )  # fmt: skip
    if PART < 2:
        weight = load_tap(weights, tap, J, c, by_c, by_y, by_x, C, K, ARRANGED, LANES, WIDTH)
        upper = add_tap(upper, values, weight, J, D, S, PAD, first, COLS, TRANSPOSED)
    if PART > 0:
        weight = load_tap(weights, below, J, c, by_c, by_y, by_x, C, K, ARRANGED, LANES, WIDTH)
        lower = add_tap(lower, values, weight, J, D, S, PAD, first, COLS, TRANSPOSED)
    return upper, lower, values


@triton.jit
def take_rows(
    upper, lower, source, weights, image, y, x, lane_ok, c, scale, shift, outside, H, W, pixel,
    by_c, by_y, by_x, zero,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, TRANSPOSED: tl.constexpr, AFFINE: tl.constexpr,
    RECTIFY: tl.constexpr, ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
    WIDTH: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Add the shares of the rows of inputs that a part takes, see `rows_of_part`, if they exist."""
    rows: tl.constexpr = rows_of_part(PART, K, S, D, PAD_Y, TRANSPOSED)
    apart: tl.constexpr = rows_apart(S, D)
    # All strips of a tile have the same rows.
    begin = rows[0] + tl.maximum(tl.cdiv(-y - rows[0], rows[2]), 0) * rows[2]
    end = tl.minimum(rows[1] + zero, H - y) if rows[1] > rows[0] else rows[0]
    for row in tl.range(begin, end, rows[2], disable_licm=True):
        at = y + row
        tap = (PAD_Y - S * row if TRANSPOSED else row) // D
        below = (PAD_Y + apart - S * row if TRANSPOSED else row - S * apart) // D
        values = ()
        for turn in tl.static_range(K):
            upper, lower, values = take_tap(
                upper, lower, values, source, weights, image + at * W, x, lane_ok, c,
                scale, shift, outside, W, pixel, tap, below, by_c, by_y, by_x,
                C, K, K - 1 - turn if TRANSPOSED else turn, S, D, PAD_X, TRANSPOSED, AFFINE, RECTIFY,
                ARRANGED, LANES, COLS, WIDTH, PART,
            )  # fmt: skip
    return upper, lower


@triton.constexpr_function
def whole_chunks(channels, chunk):
    """Whether a chunk of channels never ends behind the last."""
    return channels % chunk == 0


@triton.jit
def stand_in(c, C: tl.constexpr):
    """Channels c; for those that do not exist others, whose values nobody uses."""
    return c if whole_chunks(C, c.shape[0]) else c % C


@triton.constexpr_function
def always_inside(column, stride, pad, columns, width, inputs):
    """Whether a column of a strip's inputs is in the image for all strips of an image of outputs so wide.

    0 wide: nothing is promised.
    """
    last = (width - 1) // columns * columns * stride - pad
    return width > 0 and column >= pad and last + column < inputs


@triton.constexpr_function
def rows_apart(stride, dilation):
    """Rows from a tile's upper row to its lower."""
    return dilation if stride == 1 else 1


@triton.constexpr_function
def pairs_of_rows(height, stride, dilation):
    """Pairs that hold all rows of an image; a pair's upper row is in it."""
    apart = rows_apart(stride, dilation)
    return height // (2 * apart) * apart + min(height % (2 * apart), apart)


@triton.jit
def upper_row(pair, S: tl.constexpr, D: tl.constexpr):
    """The upper row of a pair; the lower is `rows_apart` further down."""
    apart: tl.constexpr = rows_apart(S, D)
    return pair // apart * (2 * apart) + pair % apart


@triton.constexpr_function
def reached_rows(half, k, stride, dilation, pad, transposed):
    """Rows of inputs that a tile's upper (half 0) or lower row (1) takes: range(*)."""
    reach, down = (k - 1) * dilation, half * rows_apart(stride, dilation)
    if not transposed:
        return stride * down, stride * down + reach + 1, dilation
    near = range(-reach, reach + down + 1)
    rows = [row for row in near if pad + down - stride * row in range(0, reach + 1, dilation)]
    return (rows[0], rows[-1] + 1, dilation // stride or 1) if rows else (0, 0, 1)


@triton.constexpr_function
def rows_of_part(part, k, stride, dilation, pad, transposed):
    """Rows of inputs that the upper row (part 0), both (1) or the lower row alone (2) take: range(*)."""
    begin, end, step = reached_rows(0, k, stride, dilation, pad, transposed)
    low, bottom, _ = reached_rows(1, k, stride, dilation, pad, transposed)
    meet = end > begin and bottom > low and (low - begin) % step == 0
    if not meet:
        return [(begin, end, step), (0, 0, 1), (low, bottom, step)][part]
    return [(begin, low, step), (low, end, step), (end - 1 + step, bottom, step)][part]


@triton.jit
def convolve(
    source, weights, image, y, x, lane_ok, c, scale, shift, H, W, pixel, by_c, by_y, by_x, zero,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, TRANSPOSED: tl.constexpr,
    AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr = CHUNK,
    WIDTH: tl.constexpr = 0,
):  # fmt: skip
    """Two rows of strips, two tuples of COLS tensors [LANES, CHANNELS] fp32.

    (y, x) is the input pixel from which q counts, y of all lanes; PAD_Y and PAD_X are for transposed ones.
    WIDTH, of an image of outputs, promises for a forward one with its PAD_X that all lanes and channels
    exist (see `stand_in`); with an affine a shift of -inf leaves nothing of lanes that are not lane_ok.
    ``zero`` is 0, of which the compiler must not know: it would unroll short loops and keep too much in
    registers.
    """
    scale, outside = outside_of(scale, AFFINE)
    upper, lower = nothing(COLS, LANES, CHANNELS), nothing(COLS, LANES, CHANNELS)
    for part in tl.static_range(3):
        upper, lower = take_rows(
            upper, lower, source, weights, image, y, x, lane_ok, c, scale, shift, outside, H, W, pixel,
            by_c, by_y, by_x, zero, C, K, S, D, PAD_Y, PAD_X, TRANSPOSED, AFFINE, RECTIFY, ARRANGED, LANES,
            COLS, WIDTH, part,
        )  # fmt: skip
    return upper, lower


@triton.jit
def place_in_tile(LANES: tl.constexpr, COLS: tl.constexpr):
    """(strip, 0 or 1 for the row, column of the strip) of each pixel of a tile, [2 LANES COLS] each.

    See `stack`.
    """
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
