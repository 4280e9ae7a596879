"""The three parts of the backward of half a separable convolution, for one piece of work each.

Mathematics, shapes and how the parts wait for each other: see `separable_backward`. ``work`` counts the
pieces of a part: the programs of its first group, then those of the second. A group is, in 1, a chunk of
CHUNK channels and a block of BLOCK_F filters, in 2 CHANNELS channels, in 3 these and rows of taps; programs
share the pixels: tiles of LANES strips of COLS columns (see `strips`) in 2 rows, in 3 in 1 row.
"""

import triton
import triton.language as tl

from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import (
    CHUNK,
    arrive,
    finish_affine,
    finish_weights,
    keep_weights,
    load_affine,
    multiply,
    nothing,
    widen,
)
from pnas_fast.kernels.triton.separable import load_pointwise
from pnas_fast.kernels.triton.strips import (
    convolve,
    load_columns,
    outside_of,
    pairs_of_rows,
    place_in_tile,
    rows_apart,
    stack,
    stand_in,
    upper_row,
)


@triton.jit
def load_dz(g, result, at, ok, f, f_ok, offset, slope, g_pixel, result_pixel, NORM: tl.constexpr):
    """dz' of output pixels, [pixels, filters] fp32."""
    at_g, at_z = at[:, None] * g_pixel + f[None, :], at[:, None] * result_pixel + f[None, :]
    mask = ok[:, None] & f_ok[None, :]
    return norms.load_gradient(g, result, at_g, at_z, mask, offset, slope, NORM)


@triton.jit
def pointwise_part(
    work, programs, z, affine, depthwise, pointwise, result, g, statistics, d_normal, gamma, d_norm,
    dd, d_pointwise, kept_norm, partial, tickets, ready, inverse_count, pending,
    N, z_pixel, g_pixel, result_pixel, by_c, by_y, by_x, by_f, by_k,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, NORM: tl.constexpr,
    ARRANGED: tl.constexpr, BLOCK_F: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Part 1, for one chunk of channels and one block of filters."""
    program, group = work % programs, work // programs
    blocks: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    c = group // blocks * CHUNK + tl.arange(0, CHUNK)
    f = group % blocks * BLOCK_F + tl.arange(0, BLOCK_F)
    f_ok = f < F
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    offset = tl.zeros((BLOCK_F,), tl.float32)
    slope = tl.zeros((BLOCK_F,), tl.float32)
    if NORM:
        offset, slope, d_gamma, d_beta, factor = norms.norm_gradient(
            d_normal, statistics, gamma, f, f_ok, inverse_count, F, pending
        )
        first = f_ok & (program == 0) & (group < blocks)
        tl.store(d_norm + f, d_gamma, mask=first)
        tl.store(d_norm + F + f, d_beta, mask=first)
        # Loaded again for each tile: meanwhile a window needs the registers.
        own = kept_norm + work * 2 * BLOCK_F + tl.arange(0, BLOCK_F)
        tl.store(own, offset)
        tl.store(own + BLOCK_F, slope)
        tl.debug_barrier()
    w = load_pointwise(pointwise, f, c, F, C, by_f, by_k, ARRANGED)
    if NORM:
        w *= factor[:, None]
    total = tl.zeros((BLOCK_F, CHUNK), tl.float32)
    pairs: tl.constexpr = pairs_of_rows(OH, S, D)
    strips = tl.cdiv(OW, COLS)
    tiles = pairs * tl.cdiv(N * strips, LANES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        first_lane, oy = tile // pairs * LANES, upper_row(tile % pairs, S, D)
        lane = first_lane + tl.arange(0, LANES)
        lane_ok, channel = lane < N * strips, c
        if AFFINE:
            # Strips that do not exist read the last one's pixels, which meet gradients of 0.
            lane, channel = tl.minimum(lane, N * strips - 1), stand_in(c, C)
        upper, lower = convolve(
            z, depthwise, lane // strips * H * W, oy * S - PAD_Y, lane % strips * COLS * S - PAD_X,
            lane_ok, channel, scale, shift, H, W, z_pixel, by_c, by_y, by_x, N >> 30,
            C, K, S, D, 0, PAD_X, False, AFFINE, True, ARRANGED, LANES, COLS, CHUNK, OW if AFFINE else 0,
        )  # fmt: skip
        d = stack(upper, lower, LANES, COLS).to(z.dtype.element_ty)
        lane, half, column = place_in_tile(LANES, COLS)
        lane += first_lane
        y, x = oy + half * rows_apart(S, D), lane % strips * COLS + column
        ok = (lane < N * strips) & (y < OH) & (x < OW)
        at = lane // strips * OH * OW + y * OW + x
        if NORM:
            offset, slope = tl.load(own), tl.load(own + BLOCK_F)
        dz = load_dz(g, result, at, ok, f, f_ok, offset, slope, g_pixel, result_pixel, NORM)
        # Settled operands take registers, of which a window of 7 leaves none.
        total = multiply(tl.trans(dz), d, total, z.dtype.element_ty, K < 7)
        if group % blocks == 0:
            spread_dz = tl.zeros((2 * LANES * COLS, CHUNK), tl.float32)
            spread_dz = multiply(dz, w, spread_dz, z.dtype.element_ty)
            for f0 in range(BLOCK_F, F, BLOCK_F):
                more = f0 + tl.arange(0, BLOCK_F)
                more_offset, more_slope = offset, slope
                more_w = load_pointwise(pointwise, more, c, F, C, by_f, by_k, ARRANGED)
                if NORM:
                    more_offset, more_slope, _, _, more_factor = norms.norm_gradient(
                        d_normal, statistics, gamma, more, more < F, inverse_count, F, pending
                    )
                    more_w *= more_factor[:, None]
                dz = load_dz(
                    g, result, at, ok, more, more < F, more_offset, more_slope, g_pixel, result_pixel, NORM
                )  # fmt: skip
                spread_dz = multiply(dz, more_w, spread_dz, z.dtype.element_ty)
            mask = ok[:, None] & (c < C)[None, :]
            tl.store(dd + at[:, None] * C + c[None, :], spread_dz, mask=mask)
    # dd is complete; what follows is waited for by nobody in this launch.
    arrive(tickets, ready)
    if NORM:
        _, _, _, _, factor = norms.norm_gradient(
            d_normal, statistics, gamma, f, f_ok, inverse_count, F, pending
        )
        total *= factor[:, None]
    first_f, first_c = group % blocks * BLOCK_F, group // blocks * CHUNK
    keep_weights(total, partial + program * F * C, first_f, F, first_c, C, BLOCK_F)
    finish_weights(
        program, programs, group, partial, F * C, d_pointwise, tickets, ready + 1,
        first_f, F, first_c, C, by_f, by_k, BLOCK_F,
    )  # fmt: skip


@triton.jit
def source_part(
    work, programs, z, affine, depthwise, dd, into, d_affine, accumulate, partial, tickets, ticket,
    N, z_pixel, into_pixel, by_c, by_y, by_x,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr,
    ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Part 2, for CHANNELS channels."""
    program, group = work % programs, work // programs
    c = group * CHANNELS + tl.arange(0, CHANNELS)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    d_scale = tl.zeros((LANES, CHANNELS), tl.float32)
    d_shift = tl.zeros((LANES, CHANNELS), tl.float32)
    pairs: tl.constexpr = pairs_of_rows(H, S, D)
    apart: tl.constexpr = rows_apart(S, D)
    strips = tl.cdiv(W, COLS)
    tiles = pairs * tl.cdiv(N * strips, LANES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        lane = tile // pairs * LANES + tl.arange(0, LANES)
        image, y, x = lane // strips, upper_row(tile % pairs, S, D), lane % strips * COLS
        lane_ok = lane < N * strips
        # y and x are divisible by S: COLS is.
        upper, lower = convolve(
            dd, depthwise, image * OH * OW, y // S, x // S, lane_ok, stand_in(c, C), 1.0, 0.0, OH, OW, C,
            by_c, by_y, by_x, N >> 30,
            C, K, S, D, PAD_Y, PAD_X, True, False, False, ARRANGED, LANES, COLS, CHANNELS, W,
        )  # fmt: skip
        for o in tl.static_range(COLS):
            for half in tl.static_range(2):
                dr = upper[o] if half == 0 else lower[o]
                row = y + half * apart
                ok = (lane_ok & (x + o < W) & (row < H))[:, None] & (c < C)[None, :]
                at = (image * H * W + row * W + x + o)[:, None]
                value = widen(tl.load(z + at * z_pixel + c[None, :], mask=ok, other=0.0))
                # Strips that do not exist have none, but one may end outside of its image.
                wanted = value * scale + shift > 0.0
                dr = tl.where(wanted & ok if 2 * pairs != H or W % COLS != 0 else wanted, dr, 0.0)
                d_scale += dr * value
                d_shift += dr
                own = into + at * into_pixel + c[None, :]
                share = dr * scale + widen(tl.load(own, mask=ok & (accumulate != 0), other=0.0))
                tl.store(own, share, mask=ok)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, group, partial, d_affine, accumulate, tickets, ticket, C,
            CHANNELS,
        )  # fmt: skip


@triton.jit
def depthwise_part(
    work, programs, z, affine, dd, d_depthwise, partial, tickets, ticket,
    N, z_pixel, by_c, by_y, by_x,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
    CHANNELS: tl.constexpr, TAP_ROWS: tl.constexpr,
):  # fmt: skip
    """Part 3, for CHANNELS channels and TAP_ROWS rows of taps, or as many as are left."""
    groups: tl.constexpr = (K + TAP_ROWS - 1) // TAP_ROWS
    left: tl.constexpr = K - (groups - 1) * TAP_ROWS
    program, group = work % programs, work // programs
    i, first_c = group % groups * TAP_ROWS, group // groups * CHANNELS
    kept = partial + program * K * K * C
    if (left < TAP_ROWS) & (i + TAP_ROWS > K):
        keep_taps(
            program, programs, z, affine, dd, kept, i, first_c, N, z_pixel, H, W, OH, OW,
            C, K, S, D, PAD_Y, PAD_X, AFFINE, LANES, COLS, CHANNELS, left,
        )  # fmt: skip
    else:
        keep_taps(
            program, programs, z, affine, dd, kept, i, first_c, N, z_pixel, H, W, OH, OW,
            C, K, S, D, PAD_Y, PAD_X, AFFINE, LANES, COLS, CHANNELS, TAP_ROWS,
        )  # fmt: skip
    # A column of taps is to the sums what a filter is: K, of a block of 8.
    finish_weights(
        program, programs, group, partial, K * K * C, d_depthwise, tickets, ticket,
        0, K, first_c, C, by_x, by_c, 8, i, tl.minimum(i + TAP_ROWS, K), K * C, by_y, 0, 1, CHANNELS,
    )  # fmt: skip


@triton.jit
def keep_taps(
    program, programs, z, affine, dd, kept, i, first_c, N, z_pixel,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
    CHANNELS: tl.constexpr, TAP_ROWS: tl.constexpr,
):  # fmt: skip
    """Write to a program's row (K, K, C) its sums of rows of taps from i on."""
    c = first_c + tl.arange(0, CHANNELS)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    scale, outside = outside_of(scale, AFFINE)
    totals = nothing(TAP_ROWS * K, LANES, CHANNELS)
    pairs: tl.constexpr = pairs_of_rows(OH, S, D)
    strips = tl.cdiv(OW, COLS)
    tiles = pairs * tl.cdiv(N * strips, LANES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        lane, oy = tile // pairs * LANES + tl.arange(0, LANES), upper_row(tile % pairs, S, D)
        lane_ok = lane < N * strips
        if AFFINE:
            # As in part 1. Without an affine masks take fewer registers.
            lane = tl.minimum(lane, N * strips - 1)
        image, ox = lane // strips, lane % strips * COLS
        given = ()
        for q in tl.static_range(S * rows_apart(S, D) + (TAP_ROWS - 1) * D + 1):
            if q % (S * rows_apart(S, D)) == 0 and q <= S * rows_apart(S, D):
                row = oy + q // S
                given = load_columns(
                    given, dd, image * OH * OW + row * OW, ox, lane_ok & (row < OH), c,
                    1.0, 0.0, 0.0, OW, C, C, 0, COLS, False, False,
                )  # fmt: skip
            totals = add_row(
                totals, given, z, image * H * W, oy * S - PAD_Y + i * D, ox * S - PAD_X, lane_ok, c,
                scale, shift, outside, z_pixel, H, W, C, K, S, D, AFFINE, COLS, TAP_ROWS, q,
            )  # fmt: skip
    for tap in tl.static_range(TAP_ROWS * K):
        tl.store(kept + (i * K + tap) * C + c, tl.sum(totals[tap], axis=0), mask=c < C)


@triton.constexpr_function
def pairs_of_row(q, stride, dilation, tap_rows):
    """(row of outputs, row of taps) whose products take row q of a tile's inputs."""
    pairs = [(half, q - stride * half * rows_apart(stride, dilation)) for half in range(2)]
    return [(half, i // dilation) for half, i in pairs if i % dilation == 0 and 0 <= i < tap_rows * dilation]


@triton.jit
def add_row(
    totals, given, z, image, y, x, lane_ok, c, scale, shift, outside, z_pixel,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    AFFINE: tl.constexpr, COLS: tl.constexpr, TAP_ROWS: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """Add the products of dd, two rows of COLS, with row y + Q of r, held one column at a time."""
    pairs: tl.constexpr = pairs_of_row(Q, S, D, TAP_ROWS)
    if len(pairs) > 0:
        at = y + Q
        row_ok = (at >= 0) & (at < H)
        if not AFFINE:
            row_ok = row_ok & lane_ok
        for column in tl.static_range((K - 1) * D + S * (COLS - 1) + 1):
            source = load_columns(
                (), z, image + at * W, x, row_ok, c, scale, shift, outside, W,
                z_pixel, C, column, column + 1, AFFINE, True,
            )  # fmt: skip
            totals = add_products(totals, given, source[0], pairs, column, K, S, D, COLS)
    return totals


@triton.jit
def add_products(
    totals, given, source, PAIRS: tl.constexpr, COLUMN: tl.constexpr,
    K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Add the products of dd with a column of a row of r, to the totals of the taps that take it."""
    added = ()
    for tap in tl.static_range(len(totals)):
        total = totals[tap]
        for pair in tl.static_range(len(PAIRS)):
            for o in tl.static_range(COLS):
                if PAIRS[pair][1] == tap // K and S * o + tap % K * D == COLUMN:
                    total += given[PAIRS[pair][0] * COLS + o] * source
        added = added + (total,)  # type: ignore[assignment]
    return added
