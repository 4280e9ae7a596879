"""The three parts of the backward of half a separable convolution, for one piece of work each.

Mathematics, shapes and how the parts wait for each other: see `separable_backward`. ``work`` counts the
pieces of a part: the programs of its first group, then those of the second. A group is, in 1, a chunk of
CHUNK channels and a block of BLOCK_F filters, in 2 a chunk, in 3 a chunk and a row of taps; its programs
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
    upper_row,
)


@triton.jit
def load_dz(
    g, result, at, ok, f, f_ok, factor, offset, slope, g_pixel, result_pixel, NORM: tl.constexpr,
    ANYWHERE: tl.constexpr,
):  # fmt: skip
    """dz' of output pixels, [pixels, filters] fp32; see `norm.load_gradient`."""
    at_g, at_z = at[:, None] * g_pixel + f[None, :], at[:, None] * result_pixel + f[None, :]
    mask = ok[:, None] & f_ok[None, :]
    return norms.load_gradient(g, result, at_g, at_z, mask, offset, slope, NORM, factor[None, :], ANYWHERE)


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
    factor = tl.full((BLOCK_F,), 1.0, tl.float32)
    offset = tl.zeros((BLOCK_F,), tl.float32)
    slope = tl.zeros((BLOCK_F,), tl.float32)
    if NORM:
        offset, slope, d_gamma, d_beta = norms.norm_gradient(
            d_normal, statistics, gamma, f, f_ok, inverse_count, F
        )
        first = f_ok & (program == 0) & (group < blocks)
        tl.store(d_norm + f, d_gamma, mask=first)
        tl.store(d_norm + F + f, d_beta, mask=first)
        # Loaded again for each tile: meanwhile a window needs the registers.
        own = kept_norm + work * 3 * BLOCK_F + tl.arange(0, BLOCK_F)
        tl.store(own, offset)
        tl.store(own + BLOCK_F, slope)
        tl.store(own + 2 * BLOCK_F, norms.factor_of(statistics, gamma, f, f_ok, pending, F))
        tl.debug_barrier()
    w = load_pointwise(pointwise, f, c, F, C, by_f, by_k, ARRANGED)
    total = tl.zeros((BLOCK_F, CHUNK), tl.float32)
    pairs: tl.constexpr = pairs_of_rows(OH, S, D)
    strips = tl.cdiv(OW, COLS)
    tiles = pairs * tl.cdiv(N * strips, LANES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        first_lane, oy = tile // pairs * LANES, upper_row(tile % pairs, S, D)
        lane = first_lane + tl.arange(0, LANES)
        upper, lower = convolve(
            z, depthwise, lane // strips * H * W, oy * S - PAD_Y, lane % strips * COLS * S - PAD_X,
            lane < N * strips, c, scale, shift, H, W, z_pixel, by_c, by_y, by_x,
            C, K, S, D, 0, 0, False, AFFINE, True, ARRANGED, LANES, COLS,
        )  # fmt: skip
        d = stack(upper, lower, LANES, COLS).to(z.dtype.element_ty)
        lane, half, column = place_in_tile(LANES, COLS)
        lane += first_lane
        y, x = oy + half * rows_apart(S, D), lane % strips * COLS + column
        ok = (lane < N * strips) & (y < OH) & (x < OW)
        at = lane // strips * OH * OW + y * OW + x
        if NORM:
            offset, slope, factor = tl.load(own), tl.load(own + BLOCK_F), tl.load(own + 2 * BLOCK_F)
        # Of strips that do not exist d is 0 and dd goes nowhere, but one may end outside of its image.
        whole: tl.constexpr = 2 * pairs == OH and OW % COLS == 0
        dz = load_dz(
            g, result, at, ok, f, f_ok, factor, offset, slope, g_pixel, result_pixel, NORM, whole
        )  # fmt: skip
        # Settled operands take registers, of which a window of 7 leaves none.
        total = multiply(tl.trans(dz), d, total, z.dtype.element_ty, K < 7)
        if group % blocks == 0:
            spread_dz = tl.zeros((2 * LANES * COLS, CHUNK), tl.float32)
            spread_dz = multiply(dz, w, spread_dz, z.dtype.element_ty)
            for f0 in range(BLOCK_F, F, BLOCK_F):
                more = f0 + tl.arange(0, BLOCK_F)
                more_factor, more_offset, more_slope = factor, offset, slope
                if NORM:
                    more_factor = norms.factor_of(statistics, gamma, more, more < F, pending, F)
                    more_offset, more_slope, _, _ = norms.norm_gradient(
                        d_normal, statistics, gamma, more, more < F, inverse_count, F
                    )
                dz = load_dz(
                    g,
                    result,
                    at,
                    ok,
                    more,
                    more < F,
                    more_factor,
                    more_offset,
                    more_slope,
                    g_pixel,
                    result_pixel,
                    NORM,
                    whole,
                )
                more_w = load_pointwise(pointwise, more, c, F, C, by_f, by_k, ARRANGED)
                spread_dz = multiply(dz, more_w, spread_dz, z.dtype.element_ty)
            mask = ok[:, None] & (c < C)[None, :]
            tl.store(dd + at[:, None] * C + c[None, :], spread_dz, mask=mask)
    # dd is complete; what follows is waited for by nobody in this launch.
    arrive(tickets, ready)
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
    ARRANGED: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Part 2, for one chunk of channels."""
    program, group = work % programs, work // programs
    c = group * CHUNK + tl.arange(0, CHUNK)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    d_scale = tl.zeros((LANES, CHUNK), tl.float32)
    d_shift = tl.zeros((LANES, CHUNK), tl.float32)
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
            dd, depthwise, image * OH * OW, y // S, x // S, lane_ok, c, 1.0, 0.0, OH, OW, C,
            by_c, by_y, by_x,
            C, K, S, D, PAD_Y, PAD_X, True, False, False, ARRANGED, LANES, COLS,
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
            d_scale, d_shift, program, programs, group, partial, d_affine, accumulate, tickets, ticket, C
        )


@triton.jit
def depthwise_part(
    work, programs, z, affine, dd, d_depthwise, partial, tickets, ticket,
    N, z_pixel, by_c, by_y, by_x,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
    TAP_ROWS: tl.constexpr,
):  # fmt: skip
    """Part 3, for one chunk of channels and TAP_ROWS rows of taps."""
    groups: tl.constexpr = (K + TAP_ROWS - 1) // TAP_ROWS
    program, group = work % programs, work // programs
    i = group % groups * TAP_ROWS
    c = group // groups * CHUNK + tl.arange(0, CHUNK)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    scale, outside = outside_of(scale, AFFINE)
    totals = nothing(TAP_ROWS * K, LANES)
    pairs: tl.constexpr = pairs_of_rows(OH, S, D)
    strips = tl.cdiv(OW, COLS)
    tiles = pairs * tl.cdiv(N * strips, LANES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        lane, oy = tile // pairs * LANES + tl.arange(0, LANES), upper_row(tile % pairs, S, D)
        image, ox = lane // strips, lane % strips * COLS
        lane_ok = lane < N * strips
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
    row = partial + program * K * K * C
    for tap in tl.static_range(TAP_ROWS * K):
        if TAP_ROWS * groups == K or i + tap // K < K:
            tl.store(row + (i * K + tap) * C + c, tl.sum(totals[tap], axis=0), mask=c < C)
    # A column of taps is to the sums what a filter is: K, of a block of 8.
    finish_weights(
        program, programs, group, partial, K * K * C, d_depthwise, tickets, ticket,
        0, K, group // groups * CHUNK, C, by_x, by_c, 8, i, tl.minimum(i + TAP_ROWS, K), K * C, by_y,
    )  # fmt: skip


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
        for column in tl.static_range((K - 1) * D + S * (COLS - 1) + 1):
            source = load_columns(
                (), z, image + at * W, x, lane_ok & (at >= 0) & (at < H), c, scale, shift, outside, W,
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
