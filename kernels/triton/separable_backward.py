"""One half of a separable convolution, backward.

Mathematics, with d, r and z' as in the forward and dz' = g + offset + slope z' (see `norm`):
    1. dd = dz' pointwise and d_pointwise = sum over pixels of dz'^T d, d computed again;
    2. dr[y, x] = sum over i, j of depthwise[i, j] dd[(y + pad - i D) / s, (x + pad - j D) / s] where
       these are whole, dz = scale dr where r > 0, d_scale = sum of z dr and d_shift = sum of dr there;
    3. d_depthwise[i, j] = sum over pixels of dd r[y s - pad + i D, x s - pad + j D].

Shapes and strides:
    as in the forward; g and result (N, OH, OW, F) and into (N, H, W, C), NHWC, pixels of each a number
    of units of ALIGN elements apart; dd (N, OH, OW, C) in z's dtype, scratch; d_affine and d_norm (2, C)
    and (2, F) fp32; weight gradients with the strides of the weights. Partial results are fp32, a row
    for each program of a group: pointwise (groups, programs, BLOCK_F CHUNK), affine (groups, programs,
    2 CHUNK), depthwise (groups, programs, K CHUNK).

Grid:
    one launch for all three. A program takes the next piece of work from a counter: first come those of
    1, then those of 2 and 3, which wait until all of 1 are done. Work is handed out in order and 1 waits
    for nothing, so whatever a program waits for is already running: the wait ends on any card, however
    few programs it holds at a time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.activation import Accumulator
from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Convolution, Gradients, Result, Source
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
    wait_for,
)
from pnas_fast.kernels.triton.launch import alignment, launch, pixel, tickets
from pnas_fast.kernels.triton.separable import depthwise_rows, load_tap, new_packed, pack
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, tile_of

NEXT, READY, FINISHED, FIRST_GROUP = (tl.constexpr(ticket) for ticket in range(4))


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
    dd, d_pointwise, partial, packed, tickets, inverse_count,
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
    packed += work * ((K - 1) * D + 1 + 2 * S) * K * CHUNK - group // blocks * CHUNK
    pack(depthwise, packed, c, C, by_c, by_y, by_x, CHUNK, K, S, D, COLUMNS)
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
    arrive(tickets, READY)
    finish_weights(
        total, program, programs, group, partial, d_pointwise, tickets, FIRST_GROUP,
        group % blocks * BLOCK_F, F, group // blocks * CHUNK, C, by_f, by_k, BLOCK_F,
    )  # fmt: skip


@triton.jit
def source_part(
    work, programs, z, affine, depthwise, dd, into, d_affine, partial, packed, tickets, ticket,
    N, H, W, OH, OW, pad_y, pad_x, z_pixel, into_pixel, by_c, by_y, by_x,
    C: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    AFFINE: tl.constexpr, ACCUMULATE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Part 2, for one chunk of channels."""
    program, group = work % programs, work // programs
    c = group * CHUNK + tl.arange(0, CHUNK)
    packed += work * ((K - 1) * D + 1 + 2 * S) * K * CHUNK - group * CHUNK
    pack(depthwise, packed, c, C, by_c, by_y, by_x, CHUNK, K, S, D, COLUMNS)
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
            tap = (S + pad_y - S * row) * K
            row_ok = (oy >= 0) & (oy < OH)
            for j in tl.static_range(K):
                reach = x + pad_x - j * D
                ox = reach // S
                ok = row_ok & (reach >= 0) & (ox < OW) & (reach % S == 0)
                at = (lane // W * OH * OW + oy * OW + ox)[:, None] * C + c[None, :]
                value = tl.load(dd + at, mask=mask & ok[:, None], other=0.0).to(tl.float32)
                upper += load_tap(packed, tap + j, c, CHUNK) * value
                lower += load_tap(packed, tap + K + j, c, CHUNK) * value
        for half in range(2):
            dr = tl.where(half == 0, upper, lower)
            ok = mask & (y + half < H)
            at = (lane // W * H * W + (y + half) * W + x)[:, None]
            value = tl.load(z + at * z_pixel + c[None, :], mask=ok, other=0.0).to(tl.float32)
            dr = tl.where(ok & (value * scale + shift > 0.0), dr, 0.0)
            d_scale += dr * value
            d_shift += dr
            share = dr * scale
            if ACCUMULATE:
                share += tl.load(into + at * into_pixel + c[None, :], mask=ok, other=0.0).to(tl.float32)
            tl.store(into + at * into_pixel + c[None, :], share, mask=ok)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, group, partial, d_affine, tickets, ticket, C, ACCUMULATE
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
    partial += group * programs * K * CHUNK
    for j in tl.static_range(K):
        at = program * K * CHUNK + j * CHUNK + tl.arange(0, CHUNK)
        tl.store(partial + at, tl.sum(totals[j], axis=0))
    if last_to_arrive(tickets, ticket + group, programs):
        column = tl.arange(0, 8 * CHUNK)
        out_c = group // K * CHUNK + column % CHUNK
        wanted = (column < K * CHUNK) & (out_c < C)
        summed = sum_partials(partial, programs, K * CHUNK, column, wanted)
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


@triton.jit(
    do_not_specialize=[
        "N",
        "H",
        "W",
        "OH",
        "OW",
        "z_units",
        "g_units",
        "result_units",
        "into_units",
        "pad_y",
        "pad_x",
        "pointwise_programs",
        "source_programs",
        "depthwise_programs",
    ]
)
def separable_backward_kernel(
    z, affine, depthwise, pointwise, result, g, statistics, d_normal, gamma, d_norm,
    dd, into, d_affine, d_depthwise, d_pointwise,
    pointwise_partial, source_partial, depthwise_partial, packed, tickets, inverse_count,
    N, H, W, OH, OW, pad_y, pad_x, z_units, g_units, result_units, into_units,
    by_c, by_y, by_x, by_f, by_k, pointwise_programs, source_programs, depthwise_programs,
    C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    AFFINE: tl.constexpr, NORM: tl.constexpr, ACCUMULATE: tl.constexpr,
    ALIGN: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    chunks: tl.constexpr = (C + CHUNK - 1) // CHUNK
    blocks: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    z_pixel = z_units * ALIGN
    work = tl.atomic_add(tickets + NEXT, 1, sem="relaxed", scope="gpu")
    before_source = pointwise_programs * chunks * blocks
    before_depthwise = before_source + source_programs * chunks
    if work < before_source:
        pointwise_part(
            work, pointwise_programs, z, affine, depthwise, pointwise, result, g,
            statistics, d_normal, gamma, d_norm, dd, d_pointwise, pointwise_partial, packed, tickets,
            inverse_count, N, H, W, OH, OW, pad_y, pad_x, z_pixel, g_units * ALIGN, result_units * ALIGN,
            by_c, by_y, by_x, by_f, by_k, C, F, K, S, D, AFFINE, NORM, COLUMNS, BLOCK_F,
        )  # fmt: skip
    else:
        wait_for(tickets, READY, before_source)
        if work < before_depthwise:
            source_part(
                work - before_source, source_programs, z, affine, depthwise, dd, into, d_affine,
                source_partial, packed + before_source * ((K - 1) * D + 1 + 2 * S) * K * CHUNK,
                tickets, FIRST_GROUP + chunks * blocks, N, H, W, OH, OW, pad_y, pad_x,
                z_pixel, into_units * ALIGN, by_c, by_y, by_x, C, K, S, D, AFFINE, ACCUMULATE, COLUMNS,
            )  # fmt: skip
        else:
            depthwise_part(
                work - before_depthwise, depthwise_programs, z, affine, dd, d_depthwise,
                depthwise_partial, tickets, FIRST_GROUP + chunks * blocks + chunks,
                N, H, W, OH, OW, pad_y, pad_x, z_pixel, by_c, by_y, by_x, C, K, S, D, AFFINE,
            )  # fmt: skip
    if last_to_arrive(tickets, FINISHED, tl.num_programs(0)):
        tl.store(tickets + NEXT, 0)
        tl.store(tickets + READY, 0)


def separable_backward(
    convolution: Convolution,
    source: Source,
    weights: tuple[Tensor, ...],
    result: Result,
    into: Accumulator | None,
) -> Gradients:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolution_backward`."""
    z, (depthwise, pointwise) = source.z, weights
    (n, c, h, w), (f, oh, ow) = z.shape, result.z.shape[1:]
    k, stride, dilation = convolution.kernel[0], convolution.stride[0], convolution.dilation
    block_f, chunks = block_of(z, f), -(-c // CHUNK.value)
    gradient = None if into is None else into.z
    align = alignment(c, f, *(pixel(x) for x in (z, result.z, result.g, gradient) if x is not None))
    tile, lanes = tile_of(f"separable_backward {k}", z, block_f, align), LANES.value
    outer, blocks = -(-n * ow // lanes), -(-f // block_f)
    programs = (
        spread(z.device, tile, -(-oh // 2) * outer, chunks * blocks),
        0 if into is None else spread(z.device, tile, -(-h // 2) * -(-n * w // lanes), chunks),
        spread(z.device, tile, oh * outer, chunks * k),
    )
    work = (programs[0] * chunks * blocks, programs[1] * chunks, programs[2] * chunks * k)
    dd = z.new_empty(n, oh, ow, c)
    scratch = {
        "dd": dd,
        "pointwise_partial": new_partials(z.device, work[0], block_f * CHUNK.value),
        "source_partial": new_partials(z.device, work[1], 2 * CHUNK.value),
        "depthwise_partial": new_partials(z.device, work[2], k * CHUNK.value),
        "packed": new_packed(z, convolution, work[0] + work[1], 1, CHUNK.value),
    }
    d_weights = tuple(torch.empty_like(weight) for weight in weights)
    norm = norms.backward_arguments(result)
    launch(
        separable_backward_kernel, (sum(work),), tile,
        # Part 1, then 2 and 3, which read dd and z at the same time.
        reads=(
            *(z, result.z, result.g, *weights),
            *(z, gradient if into is not None and into.accumulate else None),
        ),
        writes=(gradient, *d_weights),
        scratch=scratch, products=2 * result.z.numel() * c,
        taps=(3 if into is not None else 2) * dd.numel() * k * k,
        z=z, affine=source.affine, depthwise=depthwise, pointwise=pointwise,
        into=gradient, d_affine=None if into is None else into.affine,
        d_depthwise=d_weights[0], d_pointwise=d_weights[1],
        tickets=tickets(z.device),
        N=n, H=h, W=w, OH=oh, OW=ow,
        pad_y=same_padding(h, k, stride, dilation)[0], pad_x=same_padding(w, k, stride, dilation)[0],
        z_units=pixel(z) // align, g_units=pixel(result.g) // align, result_units=pixel(result.z) // align,
        into_units=0 if gradient is None else pixel(gradient) // align,
        by_c=depthwise.stride(0), by_y=depthwise.stride(2), by_x=depthwise.stride(3),
        by_f=pointwise.stride(0), by_k=pointwise.stride(1),
        pointwise_programs=programs[0], source_programs=programs[1], depthwise_programs=programs[2],
        C=c, K=k, S=stride, D=dilation, AFFINE=source.affine is not None,
        ACCUMULATE=into is not None and into.accumulate,
        ALIGN=align, COLUMNS=triton.next_power_of_2(k), BLOCK_F=block_f, **norm,
    )  # fmt: skip
    return norms.gradients_of(d_weights, norm["d_norm"])
