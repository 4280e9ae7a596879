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
    TEAM,
    arrive,
    arrive_for_team,
    arrive_in_team,
    finish_affine,
    finish_weights,
    load_affine,
    multiply,
    sum_rows,
    tickets_of,
)
from pnas_fast.kernels.triton.separable import load_pointwise
from pnas_fast.kernels.triton.strips import convolve, load_columns, place_in_tile, stack


@triton.jit
def load_dz(g, result, at, ok, f, f_ok, offset, slope, g_pixel, result_pixel, NORM: tl.constexpr):
    """dz' of output pixels, [pixels, filters] fp32."""
    at_g, at_z = at[:, None] * g_pixel + f[None, :], at[:, None] * result_pixel + f[None, :]
    mask = ok[:, None] & f_ok[None, :]
    return norms.load_gradient(g, result, at_g, at_z, mask, offset, slope, NORM)


@triton.jit
def pointwise_part(
    work, programs, z, affine, depthwise, pointwise, result, g, statistics, d_normal, gamma, d_norm,
    dd, d_pointwise, partial, tickets, ready, inverse_count,
    N, H, W, OH, OW, z_pixel, g_pixel, result_pixel, by_c, by_y, by_x, by_f, by_k,
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
        offset, slope, d_gamma, d_beta = norms.norm_gradient(
            d_normal, statistics, gamma, f, f_ok, inverse_count, F
        )
        first = f_ok & (program == 0) & (group < blocks)
        tl.store(d_norm + f, d_gamma, mask=first)
        tl.store(d_norm + F + f, d_beta, mask=first)
    w = load_pointwise(pointwise, f, c, F, C, by_f, by_k, ARRANGED)
    total = tl.zeros((BLOCK_F, CHUNK), tl.float32)
    pairs, strips = (OH + 1) // 2, tl.cdiv(OW, COLS)
    for tile in range(program, pairs * tl.cdiv(N * strips, LANES), programs):
        first_lane, oy = tile // pairs * LANES, tile % pairs * 2
        lane = first_lane + tl.arange(0, LANES)
        upper, lower = convolve(
            z, depthwise, lane // strips * H * W, oy * S - PAD_Y, lane % strips * COLS * S - PAD_X,
            lane < N * strips, c, scale, shift, H, W, z_pixel, by_c, by_y, by_x,
            C, K, S, D, 0, 0, False, AFFINE, True, ARRANGED, LANES, COLS,
        )  # fmt: skip
        d = stack(upper, lower, LANES, COLS).to(z.dtype.element_ty)
        lane, half, column = place_in_tile(LANES, COLS)
        lane += first_lane
        y, x = oy + half, lane % strips * COLS + column
        ok = (lane < N * strips) & (y < OH) & (x < OW)
        at = lane // strips * OH * OW + y * OW + x
        dz = load_dz(g, result, at, ok, f, f_ok, offset, slope, g_pixel, result_pixel, NORM)
        total = multiply(tl.trans(dz), d, total, z.dtype.element_ty)
        if group % blocks == 0:
            spread_dz = tl.zeros((2 * LANES * COLS, CHUNK), tl.float32)
            spread_dz = multiply(dz, w, spread_dz, z.dtype.element_ty)
            for f0 in range(BLOCK_F, F, BLOCK_F):
                more = f0 + tl.arange(0, BLOCK_F)
                more_offset, more_slope = offset, slope
                if NORM:
                    more_offset, more_slope, _, _ = norms.norm_gradient(
                        d_normal, statistics, gamma, more, more < F, inverse_count, F
                    )
                dz = load_dz(
                    g, result, at, ok, more, more < F, more_offset, more_slope, g_pixel, result_pixel, NORM
                )
                more_w = load_pointwise(pointwise, more, c, F, C, by_f, by_k, ARRANGED)
                spread_dz = multiply(dz, more_w, spread_dz, z.dtype.element_ty)
            mask = ok[:, None] & (c < C)[None, :]
            tl.store(dd + at[:, None] * C + c[None, :], spread_dz, mask=mask)
    # dd is complete; what follows is waited for by nobody in this launch.
    arrive(tickets, ready)
    finish_weights(
        total, program, programs, group, partial, F * C, d_pointwise, tickets, ready + 1,
        group % blocks * BLOCK_F, F, group // blocks * CHUNK, C, by_f, by_k, BLOCK_F,
    )  # fmt: skip


@triton.jit
def source_part(
    work, programs, z, affine, depthwise, dd, into, d_affine, accumulate, partial, tickets, ticket,
    N, H, W, OH, OW, z_pixel, into_pixel, by_c, by_y, by_x,
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
    pairs, strips = (H + 1) // 2, tl.cdiv(W, COLS)
    for tile in range(program, pairs * tl.cdiv(N * strips, LANES), programs):
        lane = tile // pairs * LANES + tl.arange(0, LANES)
        image, y, x = lane // strips, tile % pairs * 2, lane % strips * COLS
        lane_ok = lane < N * strips
        # y and x are divisible by S: COLS is.
        upper, lower = convolve(
            dd, depthwise, image * OH * OW, y // S, x // S, lane_ok, c, 1.0, 0.0, OH, OW, C,
            by_c, by_y, by_x, C, K, S, D, PAD_Y, PAD_X, True, False, False, ARRANGED, LANES, COLS,
        )  # fmt: skip
        for o in tl.static_range(COLS):
            for half in tl.static_range(2):
                dr = upper[o] if half == 0 else lower[o]
                ok = (lane_ok & (x + o < W) & (y + half < H))[:, None] & (c < C)[None, :]
                at = (image * H * W + (y + half) * W + x + o)[:, None]
                value = tl.load(z + at * z_pixel + c[None, :], mask=ok, other=0.0).to(tl.float32)
                dr = tl.where(ok & (value * scale + shift > 0.0), dr, 0.0)
                d_scale += dr * value
                d_shift += dr
                own = into + at * into_pixel + c[None, :]
                share = dr * scale + tl.load(own, mask=ok & (accumulate != 0), other=0.0).to(tl.float32)
                tl.store(own, share, mask=ok)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, group, partial, d_affine, accumulate, tickets, ticket, C
        )


@triton.jit
def depthwise_part(
    work, programs, z, affine, dd, d_depthwise, partial, tickets, ticket,
    N, H, W, OH, OW, z_pixel, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Part 3, for one chunk of channels and one row of taps."""
    program, group = work % programs, work // programs
    i = group % K
    c = group // K * CHUNK + tl.arange(0, CHUNK)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    totals = ()
    for _ in tl.static_range(K):
        totals = totals + (tl.zeros((LANES, CHUNK), tl.float32),)  # type: ignore[assignment]
    strips = tl.cdiv(OW, COLS)
    for tile in range(program, OH * tl.cdiv(N * strips, LANES), programs):
        lane = tile // OH * LANES + tl.arange(0, LANES)
        image, oy, ox = lane // strips, tile % OH, lane % strips * COLS
        y = oy * S - PAD_Y + i * D
        lane_ok = lane < N * strips
        row_ok = lane_ok & (y >= 0) & (y < H)
        # Of a row that does not exist dd is not read either, so its products are 0.
        given = load_columns(
            (), dd, (image * OH + oy) * OW, ox, row_ok, c, 1.0, 0.0, OW, C, C, 0, COLS, False, False
        )
        sources = load_columns(
            (), z, image * H * W + y * W, ox * S - PAD_X, row_ok, c, scale, shift, W, z_pixel, C,
            0, (K - 1) * D + S * (COLS - 1) + 1, AFFINE, True,
        )  # fmt: skip
        totals = add_products(totals, given, sources, K, S, D, COLS)
    row = partial + program * K * K * C
    for j in tl.static_range(K):
        tl.store(row + (i * K + j) * C + c, tl.sum(totals[j], axis=0), mask=c < C)
    column = tl.arange(0, 8 * CHUNK)
    j, out_c = column // CHUNK, group // K * CHUNK + column % CHUNK
    wanted, at = (j < K) & (out_c < C), (i * K + j) * C + out_c
    tickets += ticket + group * tickets_of(programs)
    last, first, count = arrive_in_team(tickets, program, programs)
    if last:
        if programs > TEAM:
            summed = sum_rows(partial, first, count, K * K * C, at, wanted, TEAM)
            tl.store(partial + (programs + program // TEAM) * K * K * C + at, summed, mask=wanted)
        last, first, count = arrive_for_team(tickets, programs)
        if last:
            summed = sum_rows(partial, first, count, K * K * C, at, wanted, TEAM)
            tl.store(d_depthwise + out_c * by_c + i * by_y + j * by_x, summed, mask=wanted)


@triton.jit
def add_products(
    totals, given, sources, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, COLS: tl.constexpr
):
    """Add one row's products of dd and r to the totals of K taps."""
    added = ()
    for j in tl.static_range(K):
        total = totals[j]
        for o in tl.static_range(COLS):
            total += given[o] * sources[S * o + j * D]
        added = added + (total,)  # type: ignore[assignment]
    return added
