"""The three parts of the backward of half a separable convolution, for one piece of work each.

Mathematics, shapes and how the parts wait for each other: see `separable_backward`. ``work`` counts the
pieces of a part: the programs of its first group, then those of the second. A group is, in 1, a chunk of
CHUNK channels and a block of BLOCK_F filters, in 2 a chunk, in 3 a chunk and a row of taps; its programs
share the pixels: tiles of 2 rows × LANES columns, in 3 of 1 row.
"""

import triton
import triton.language as tl

from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import (
    CHUNK,
    LANES,
    activate,
    arrive,
    finish_affine,
    finish_weights,
    last_to_arrive,
    load_affine,
    multiply,
    sum_partials,
)
from pnas_fast.kernels.triton.separable import depthwise_rows, load_tap, pack


@triton.jit
def load_dz(
    g, result, row, oy, OH, ox, lane_ok, f, f_ok, offset, slope, OW, g_pixel, result_pixel, NORM: tl.constexpr
):  # fmt: skip
    """dz' of one row of output pixels, [LANES, filters] fp32."""
    mask = (lane_ok & (oy < OH))[:, None] & f_ok[None, :]
    at = (row + oy * OW + ox)[:, None]
    return norms.load_gradient(
        g, result, at * g_pixel + f[None, :], at * result_pixel + f[None, :], mask, offset, slope, NORM
    )


@triton.jit
def load_pointwise(pointwise, f, c, F: tl.constexpr, C: tl.constexpr, by_f, by_k):
    """[filters, channels]."""
    mask = (f < F)[:, None] & (c < C)[None, :]
    return tl.load(pointwise + f[:, None] * by_f + c[None, :] * by_k, mask=mask, other=0.0)


@triton.jit
def pointwise_part(
    work, programs, z, affine, depthwise, pointwise, result, g, statistics, d_normal, gamma, d_norm,
    dd, d_pointwise, partial, packed, tickets, ready, inverse_count,
    N, H, W, OH, OW, pad_y, pad_x, z_pixel, g_pixel, result_pixel, by_c, by_y, by_x, by_f, by_k,
    C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    AFFINE: tl.constexpr, NORM: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """Part 1, for one chunk of channels and one block of filters."""
    program, group = work % programs, work // programs
    blocks: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    c = group // blocks * CHUNK + tl.arange(0, CHUNK)
    f = group % blocks * BLOCK_F + tl.arange(0, BLOCK_F)
    f_ok = f < F
    packed += work * K * K * CHUNK - group // blocks * CHUNK
    pack(depthwise, packed, c, C, by_c, by_y, by_x, CHUNK, K, COLUMNS)
    tl.debug_barrier()
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
    w = load_pointwise(pointwise, f, c, F, C, by_f, by_k)
    total = tl.zeros((BLOCK_F, CHUNK), tl.float32)
    pairs = (OH + 1) // 2
    for tile in range(program, pairs * tl.cdiv(N * OW, LANES), programs):
        lane = tile // pairs * LANES + tl.arange(0, LANES)
        oy, ox = tile % pairs * 2, lane % OW
        lane_ok = lane < N * OW
        row = lane // OW * OH * OW
        above, below = depthwise_rows(
            z, packed, lane // OW * H * W, oy * S - pad_y, ox * S - pad_x, lane_ok, c, c < C,
            scale, shift, H, W, z_pixel, CHUNK, K, S, D, AFFINE,
        )  # fmt: skip
        for half in range(2):
            y = oy + half
            dz = load_dz(
                g, result, row, y, OH, ox, lane_ok, f, f_ok, offset, slope, OW, g_pixel, result_pixel, NORM
            )
            d = tl.where(half == 0, above, below)
            total = multiply(tl.trans(dz), d, total, z.dtype.element_ty)
            if group % blocks == 0:
                spread_dz = tl.zeros((LANES, CHUNK), tl.float32)
                spread_dz = multiply(dz, w, spread_dz, z.dtype.element_ty)
                for f0 in range(BLOCK_F, F, BLOCK_F):
                    more = f0 + tl.arange(0, BLOCK_F)
                    more_offset, more_slope = offset, slope
                    if NORM:
                        more_offset, more_slope, _, _ = norms.norm_gradient(
                            d_normal, statistics, gamma, more, more < F, inverse_count, F
                        )
                    dz = load_dz(
                        g, result, row, y, OH, ox, lane_ok, more, more < F, more_offset, more_slope,
                        OW, g_pixel, result_pixel, NORM,
                    )  # fmt: skip
                    more_w = load_pointwise(pointwise, more, c, F, C, by_f, by_k)
                    spread_dz = multiply(dz, more_w, spread_dz, z.dtype.element_ty)
                mask = (lane_ok & (y < OH))[:, None] & (c < C)[None, :]
                tl.store(dd + (row + y * OW + ox)[:, None] * C + c[None, :], spread_dz, mask=mask)
    # dd is complete; what follows is waited for by nobody in this launch.
    arrive(tickets, ready)
    finish_weights(
        total, program, programs, group, partial, F * C, d_pointwise, tickets, ready + 1,
        group % blocks * BLOCK_F, F, group // blocks * CHUNK, C, by_f, by_k, BLOCK_F,
    )  # fmt: skip


@triton.jit
def source_part(
    work, programs, z, affine, depthwise, dd, into, d_affine, accumulate, partial, packed, tickets, ticket,
    N, H, W, OH, OW, pad_y, pad_x, z_pixel, into_pixel, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    AFFINE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Part 2, for one chunk of channels."""
    program, group = work % programs, work // programs
    c = group * CHUNK + tl.arange(0, CHUNK)
    packed += work * K * K * CHUNK - group * CHUNK
    pack(depthwise, packed, c, C, by_c, by_y, by_x, CHUNK, K, COLUMNS)
    tl.debug_barrier()
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    d_scale = tl.zeros((LANES, CHUNK), tl.float32)
    d_shift = tl.zeros((LANES, CHUNK), tl.float32)
    pairs = (H + 1) // 2
    for tile in range(program, pairs * tl.cdiv(N * W, LANES), programs):
        lane = tile // pairs * LANES + tl.arange(0, LANES)
        y, x = tile % pairs * 2, lane % W
        mask = (lane < N * W)[:, None] & (c < C)[None, :]
        upper = tl.zeros((LANES, CHUNK), tl.float32)
        lower = tl.zeros((LANES, CHUNK), tl.float32)
        # Rows of dd, counted from y / S, whose window holds one of the two rows.
        for row in range(-(((K - 1) * D - pad_y) // S), (pad_y + 1) // S + 1):
            oy = y // S + row
            tap_row = pad_y - S * row
            row_ok = (oy >= 0) & (oy < OH)
            for j in tl.static_range(K):
                reach = x + pad_x - j * D
                ox = reach // S
                ok = row_ok & (reach >= 0) & (ox < OW) & (reach % S == 0)
                at = (lane // W * OH * OW + oy * OW + ox)[:, None] * C + c[None, :]
                value = tl.load(dd + at, mask=mask & ok[:, None], other=0.0).to(tl.float32)
                upper += load_tap(packed, tap_row, j, c, CHUNK, K, D) * value
                lower += load_tap(packed, tap_row + 1, j, c, CHUNK, K, D) * value
        for half in range(2):
            dr = tl.where(half == 0, upper, lower)
            ok = mask & (y + half < H)
            at = (lane // W * H * W + (y + half) * W + x)[:, None]
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
    N, H, W, OH, OW, pad_y, pad_x, z_pixel, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    """Part 3, for one chunk of channels and one row of taps."""
    program, group = work % programs, work // programs
    i = group % K
    c = group // K * CHUNK + tl.arange(0, CHUNK)
    c_ok = c < C
    scale, shift = load_affine(affine, c, c_ok, C, AFFINE)
    totals = ()
    for _ in tl.static_range(K):
        totals = totals + (tl.zeros((LANES, CHUNK), tl.float32),)  # type: ignore[assignment]
    for tile in range(program, OH * tl.cdiv(N * OW, LANES), programs):
        lane = tile // OH * LANES + tl.arange(0, LANES)
        oy, ox = tile % OH, lane % OW
        y = oy * S - pad_y + i * D
        lane_ok = (lane < N * OW) & (y >= 0) & (y < H)
        at = (lane // OW * OH * OW + oy * OW + ox)[:, None] * C + c[None, :]
        value = tl.load(dd + at, mask=lane_ok[:, None] & c_ok[None, :], other=0.0).to(tl.float32)
        row = lane // OW * H * W + y * W
        totals = add_taps(
            totals, value, z, row, ox * S - pad_x, lane_ok, c, c_ok, scale, shift, W, z_pixel, K, D, AFFINE
        )
    for j in tl.static_range(K):
        tl.store(partial + program * K * K * C + (i * K + j) * C + c, tl.sum(totals[j], axis=0), mask=c_ok)
    if last_to_arrive(tickets, ticket + group, programs):
        column = tl.arange(0, 8 * CHUNK)
        out_c = group // K * CHUNK + column % CHUNK
        wanted = (column < K * CHUNK) & (out_c < C)
        at = (i * K + column // CHUNK) * C + out_c
        summed = sum_partials(partial, programs, K * K * C, at, wanted)
        tl.store(d_depthwise + out_c * by_c + i * by_y + column // CHUNK * by_x, summed, mask=wanted)


@triton.jit
def add_taps(
    totals, value, z, row, x, lane_ok, c, c_ok, scale, shift, W, z_pixel,
    K: tl.constexpr, D: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    """Add one row's products of dd and r to the totals of K taps."""
    added = ()
    for j in tl.static_range(K):
        at = x + j * D
        mask = (lane_ok & (at >= 0) & (at < W))[:, None] & c_ok[None, :]
        r = tl.load(z + (row + at)[:, None] * z_pixel + c[None, :], mask=mask, other=0.0)
        product = value * activate(r, mask, scale, shift, AFFINE, True)
        added = added + (totals[j] + product,)  # type: ignore[assignment]
    return added
