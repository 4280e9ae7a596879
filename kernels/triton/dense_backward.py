"""Dense convolution by implicit GEMM, backward: 1×1, 1×7, 7×1, the stem's 3×3, factorized reduction.

Mathematics, with r and z' as in the forward and dz' = g + offset + slope z' (see `norm`):
    1. d_weight[f, c, i, j] = sum over pixels of dz'[f] r[y sy - pad_y + i, x sx - pad_x + j, c];
    2. dr[y, x, c] = sum over f, i, j of weight[f, c, i, j] dz'[(y + pad_y - i) / sy, (x + pad_x - j) / sx, f]
       where these are whole; dz = scale dr where r > 0 or nothing was rectified, d_scale = sum of z dr and
       d_shift = sum of dr there.

Shapes and strides:
    as in the forward; g and result (N, OH, OW, F) and into (N, H, W, C), NHWC, pixels of each a number
    of units of ALIGN elements apart; d_affine and d_norm (2, C) and (2, F) fp32; weight gradients with
    the strides of the weights. Partial results are fp32, a row for each program of a group: weights
    (problems, programs and teams, KH KW, F, C), affine (problems, programs and
    teams, 2, C).

Grid:
    (programs, problems), one launch for both parts, which need nothing of each other. In 1 a group is TAPS
    taps, a block of BLOCK_F filters and a chunk of CHUNK channels, in 2 a block of BLOCK_C channels; the
    programs of a group share the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from pnas_fast.kernels.fused import Convolution, Gradients
from pnas_fast.kernels.fused.primitives import Backward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.dense import (
    block_of_filters,
    folds,
    load_folded,
    load_sources,
    padding,
    weight_arguments,
    weight_tensors,
)
from pnas_fast.kernels.triton.device import (
    CHUNK,
    PIXELS,
    finish_affine,
    finish_weights,
    keep_weights,
    load_affine,
    multiply,
    nothing,
    pick,
    rows_of,
    tickets_of,
    widen,
)
from pnas_fast.kernels.triton.launch import alignment, capability, launch
from pnas_fast.kernels.triton.problems import accumulators, added_to, each, kept, new_like
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, teams_of, tile_of


@triton.jit
def weight_part(
    work, programs, z, affine, result, g, statistics, d_normal, gamma, d_norm,
    d_weight, d_second, partial, tickets, inverse_count,
    N, z_pixel, g_pixel, result_pixel, by_f, by_c, by_y, by_x, second_by_f, second_by_c,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr,
    F0: tl.constexpr, C: tl.constexpr, F: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    NORM: tl.constexpr, BLOCK_F: tl.constexpr, FOLDED: tl.constexpr, TAPS: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Part 1, for TAPS taps or all of them folded, one block of filters and one chunk of channels."""
    program, group = work % programs, work // programs
    taps: tl.constexpr = 1 if FOLDED else KH * KW
    tap_groups: tl.constexpr = (taps + TAPS - 1) // TAPS
    columns: tl.constexpr = C * KH * KW if FOLDED else C
    first_tap, block = group % tap_groups * TAPS, group // tap_groups
    chunks = tl.cdiv(columns, CHUNK)
    first_c = block % chunks * CHUNK
    c = first_c + tl.arange(0, CHUNK)
    half, f, f_ok = block_of_filters(block // chunks, F0, F - F0, BLOCK_F)
    channel = f + half * F0
    if F0 < F:
        d_weight = tl.where(half == 1, d_second, d_weight)
        by_f = tl.where(half == 1, second_by_f, by_f)
        by_c = tl.where(half == 1, second_by_c, by_c)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE and not FOLDED)
    offset = tl.zeros((BLOCK_F,), tl.float32)
    slope = tl.zeros((BLOCK_F,), tl.float32)
    if NORM:
        offset, slope, d_gamma, d_beta, _ = norms.norm_gradient(
            d_normal, statistics, gamma, channel, f_ok, inverse_count, F
        )
        first = f_ok & (program == 0) & (block % chunks == 0) & (first_tap == 0)
        tl.store(d_norm + channel, d_gamma, mask=first)
        tl.store(d_norm + F + channel, d_beta, mask=first)
    totals = nothing(TAPS, BLOCK_F)
    tiles = tl.cdiv(N * OH * OW, PIXELS)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        ok = p < N * OH * OW
        image, y, x = p // (OH * OW), p // OW % OH * SY - PAD_Y + half, p % OW * SX - PAD_X + half
        mask = ok[:, None] & f_ok[None, :]
        at_g, at_z = p[:, None] * g_pixel + channel[None, :], p[:, None] * result_pixel + channel[None, :]
        dz = tl.trans(norms.load_gradient(g, result, at_g, at_z, mask, offset, slope, NORM))
        added = ()
        for own in tl.static_range(TAPS):
            if FOLDED:
                r = load_folded(
                    z, image, y, x, ok, c, H, W, z_pixel, affine, C, KH, KW, by_c, by_y, by_x,
                    AFFINE, RECTIFY,
                )  # fmt: skip
            else:
                i, j = (first_tap + own) // KW, (first_tap + own) % KW
                r = load_sources(
                    z, image, y + i, x + j, ok & (first_tap + own < taps), c, C, scale, shift, H, W, z_pixel,
                    AFFINE, RECTIFY,
                )  # fmt: skip
            added = added + (multiply(dz, r, totals[own], z.dtype.element_ty),)  # type: ignore[assignment]
        totals = added
    # A tap has the gradients of both weights, one after the other.
    partial += half * F0 * columns
    filters, first_f = F0 + half * (F - F0 - F0), tl.min(f, axis=0)
    for own in tl.static_range(TAPS):
        if first_tap + own < taps:
            row = partial + program * taps * F * columns + (first_tap + own) * F * columns
            keep_weights(totals[own], row, first_f, filters, first_c, columns, BLOCK_F)
    finish_weights(
        program, programs, group, partial, taps * F * columns, d_weight, tickets, 0,
        first_f, filters, first_c, columns, by_f, 1 if FOLDED else by_c, BLOCK_F,
        first_tap, tl.minimum(first_tap + TAPS, taps), F * columns, by_y, by_x, KW,
    )  # fmt: skip


@triton.jit
def spread_gradient(
    total, weight, result, g, statistics, d_normal, gamma, inverse_count,
    image, y, x, ok, c, g_pixel, result_pixel, first, filters, by_f, by_c, by_y, by_x,
    OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, NORM: tl.constexpr, FILTERS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Add to dr at input pixels, (y, x) with the padding counted, the share of one weight's filters."""
    for tap in range(KH * KW):
        i, j = tap // KW, tap % KW
        oy, ox = (y - i) // SY, (x - j) // SX
        whole = (y >= i) & (x >= j) & ((y - i) % SY == 0) & ((x - j) % SX == 0)
        inside = ok & whole & (oy < OH) & (ox < OW)
        p = (image * OH * OW + oy * OW + ox)[:, None]
        for f0 in range(0, filters, FILTERS):
            f = f0 + tl.arange(0, FILTERS)
            f_ok = f < filters
            channel = first + f
            offset = tl.zeros((FILTERS,), tl.float32)
            slope = tl.zeros((FILTERS,), tl.float32)
            if NORM:
                offset, slope, _, _, _ = norms.norm_gradient(
                    d_normal, statistics, gamma, channel, f_ok, inverse_count, F
                )
            mask = inside[:, None] & f_ok[None, :]
            at_g, at_z = p * g_pixel + channel[None, :], p * result_pixel + channel[None, :]
            dz = norms.load_gradient(g, result, at_g, at_z, mask, offset, slope, NORM)
            at = f[:, None] * by_f + c[None, :] * by_c + i * by_y + j * by_x
            w = tl.load(weight + at, mask=f_ok[:, None] & (c < C)[None, :], other=0.0)
            total = multiply(dz, w, total, DTYPE)
    return total


@triton.jit
def source_part(
    work, programs, z, affine, weight, second, result, g, statistics, d_normal, gamma,
    into, d_affine, accumulate, partial, tickets, ticket, inverse_count,
    N, z_pixel, g_pixel, result_pixel, into_pixel, by_f, by_c, by_y, by_x, second_by_f, second_by_c,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr,
    F0: tl.constexpr, C: tl.constexpr, F: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    NORM: tl.constexpr, BLOCK_C: tl.constexpr, FILTERS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Part 2, for one block of channels."""
    program, group = work % programs, work // programs
    c = group * BLOCK_C + tl.arange(0, BLOCK_C)
    d_scale = tl.zeros((1, BLOCK_C), tl.float32)
    d_shift = tl.zeros((1, BLOCK_C), tl.float32)
    tiles = tl.cdiv(N * H * W, PIXELS)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        ok = p < N * H * W
        image, y, x = p // (H * W), p // W % H + PAD_Y, p % W + PAD_X
        dr = tl.zeros((PIXELS, BLOCK_C), tl.float32)
        dr = spread_gradient(
            dr, weight, result, g, statistics, d_normal, gamma, inverse_count,
            image, y, x, ok, c, g_pixel, result_pixel, 0, F0, by_f, by_c, by_y, by_x,
            OH, OW, C, F, KH, KW, SY, SX, NORM, FILTERS, z.dtype.element_ty,
        )  # fmt: skip
        if F0 < F:
            dr = spread_gradient(
                dr, second, result, g, statistics, d_normal, gamma, inverse_count,
                image, y - 1, x - 1, ok, c, g_pixel, result_pixel, F0, F - F0,
                second_by_f, second_by_c, 0, 0, OH, OW, C, F, 1, 1, SY, SX, NORM, FILTERS, z.dtype.element_ty,
            )  # fmt: skip
        mask = ok[:, None] & (c < C)[None, :]
        value = widen(tl.load(z + p[:, None] * z_pixel + c[None, :], mask=mask, other=0.0))
        # Here, so that the products above have their registers.
        scale, shift = load_affine(affine, c, c < C, C, AFFINE)
        if RECTIFY:
            dr = tl.where(mask & (value * scale + shift > 0.0), dr, 0.0)
        if AFFINE:
            d_scale += tl.sum(dr * value, axis=0)[None, :]
            d_shift += tl.sum(dr, axis=0)[None, :]
        own = into + p[:, None] * into_pixel + c[None, :]
        share = dr * scale + widen(tl.load(own, mask=mask & (accumulate != 0), other=0.0))
        tl.store(own, share, mask=mask)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, group, partial, d_affine, accumulate, tickets, ticket, C,
            BLOCK_C,
        )  # fmt: skip


@triton.jit(
    do_not_specialize=["N", "accumulate"]
    + ["z_units", "g_units", "result_units", "into_units"]
    + ["weight_programs", "weight_groups", "source_programs"]
)
def dense_backward_kernel(
    z, affine, weight, second, result, g, statistics, d_normal, gamma, d_norm,
    into, d_affine, accumulate, d_weight, d_second, weight_partial, source_partial, tickets, inverse_count,
    N, z_units, g_units, result_units, into_units,
    by_f, by_c, by_y, by_x, second_by_f, second_by_c, weight_programs, weight_groups, source_programs,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, F0: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    NORM: tl.constexpr, ALIGN: tl.constexpr, FOLDED: tl.constexpr,
    BLOCK_F: tl.constexpr, TAPS: tl.constexpr, WEIGHT_PIXELS: tl.constexpr,
    BLOCK_C: tl.constexpr, FILTERS: tl.constexpr, SOURCE_PIXELS: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    work, problem = tl.program_id(0), tl.program_id(1)
    z_pixel, g_pixel, result_pixel = z_units * ALIGN, g_units * ALIGN, result_units * ALIGN
    z, affine, result, g = pick(z, problem), pick(affine, problem), pick(result, problem), pick(g, problem)
    statistics, d_normal, gamma = pick(statistics, problem), pick(d_normal, problem), pick(gamma, problem)
    weight_tickets = weight_groups * tickets_of(weight_programs)
    tickets += problem * (weight_tickets + tl.cdiv(C, BLOCK_C))
    if work < weight_programs * weight_groups:
        weight_part(
            work, weight_programs, z, affine, result, g, statistics, d_normal, gamma, pick(d_norm, problem),
            pick(d_weight, problem), pick(d_second, problem),
            weight_partial + problem * rows_of(weight_programs) * KH * KW * F * C, tickets, inverse_count,
            N, z_pixel, g_pixel, result_pixel, by_f, by_c, by_y, by_x, second_by_f, second_by_c,
            H, W, OH, OW, PAD_Y, PAD_X, F0, C, F, KH, KW, SY, SX, AFFINE, RECTIFY, NORM,
            BLOCK_F, FOLDED, TAPS, WEIGHT_PIXELS,
        )  # fmt: skip
    elif into is not None:
        source_part(
            work - weight_programs * weight_groups, source_programs, z, affine, pick(weight, problem),
            pick(second, problem), result, g, statistics, d_normal, gamma,
            pick(into, problem), pick(d_affine, problem), (accumulate >> problem) & 1,
            source_partial + problem * rows_of(source_programs) * 2 * C, tickets, weight_tickets,
            inverse_count, N, z_pixel, g_pixel, result_pixel, into_units * ALIGN,
            by_f, by_c, by_y, by_x, second_by_f, second_by_c,
            H, W, OH, OW, PAD_Y, PAD_X, F0, C, F, KH, KW, SY, SX, AFFINE, RECTIFY, NORM,
            BLOCK_C, FILTERS, SOURCE_PIXELS,
        )  # fmt: skip


def dense_backward(convolution: Convolution, problems: Sequence[Backward]) -> list[Gradients]:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolutions_backward`."""
    (z, affine), weights, result, into = problems[0]
    (n, c, h, w), (f, oh, ow) = z.shape, result.z.shape[1:]
    (kh, kw), together = convolution.kernel, len(problems)
    block_f = block_of(z, max(weight.shape[0] for weight in weights))
    # Of two weights the addresses take the registers of half the channels.
    block_c = min(block_of(z, c), 64 // len(weights))
    gradient = None if into is None else into.z
    strides = [pixel(x) for x in (z, result.z, result.g, gradient) if x is not None]
    align = alignment(c, f, weights[0].shape[0], *strides)
    # Gradients of sources are taken tap by tap, and their weights with them.
    folded = into is None and folds(weights)
    # Taps share gradients of filters, as far as registers hold totals: those of 32 filters, and of all before
    # Hopper, lie with several warps.
    most = {32: 2, 64: 7 if capability(z.device) >= 90 else 4}.get(block_f, 2)
    taps = 1 if folded else min(kh * kw, most)
    tile = tile_of(f"dense_backward{' of taps' if taps > 1 else ''}", z, block_f, align)
    groups = sum(-(-weight.shape[0] // block_f) for weight in weights)
    groups *= 1 if folded else -(-c // CHUNK.value) * -(-kh * kw // taps)
    weight_pixels = PIXELS.value
    source_pixels = 64 if z.element_size() == 4 else min(max(64, 512 * tile.warps // block_c), 128)
    programs = spread(z.device, tile, -(-n * oh * ow // weight_pixels), groups * together)
    source_groups, source_programs = -(-c // block_c), 0
    if into is not None:
        source_programs = spread(z.device, tile, -(-n * h * w // source_pixels), source_groups * together)
    pad_y, pad_x = padding(convolution, z)
    d_weights = [new_like(own.weights) for own in problems]
    d_tensors = weight_tensors(d_weights)
    sinks, tensors = [own.into for own in problems], norms.backward_tensors([own.result for own in problems])
    reads = []
    for own in problems:
        normed = own.result.z if own.result.normal is not None else None
        reads += [own.source.z, normed, own.result.g]
        reads += [] if into is None else [own.source.z, normed, own.result.g, *own.weights]
    launch(
        dense_backward_kernel, (programs * groups + source_programs * source_groups, together), tile,
        reads=[*reads, *kept(sinks)],
        writes=[*(x for own in d_weights for x in own), *(sink.z for sink in sinks if sink is not None)],
        scratch={
            "weight_partial": new_partials(z.device, together, programs, kh * kw, f, c),
            "source_partial": new_partials(z.device, together, source_programs, 2, c),
        },
        products=(1 if into is None else 2)
        * together * sum(weight.numel() for weight in weights) * n * oh * ow,
        problems={
            "z": each([own.source.z for own in problems]),
            "affine": each([own.source.affine for own in problems]),
            "d_weight": d_tensors["weight"], "d_second": d_tensors["second"],
            **weight_tensors([own.weights for own in problems]), **accumulators(sinks), **tensors,
        },
        accumulate=added_to(sinks), counters=together * (groups * (1 + teams_of(programs)) + source_groups),
        N=n, H=h, W=w, OH=oh, OW=ow, PAD_Y=pad_y, PAD_X=pad_x,
        z_units=pixel(z) // align, g_units=pixel(result.g) // align, result_units=pixel(result.z) // align,
        into_units=0 if gradient is None else pixel(gradient) // align,
        weight_programs=programs, weight_groups=groups, source_programs=source_programs,
        C=c, KH=kh, KW=kw, SY=convolution.stride[0], SX=convolution.stride[1],
        AFFINE=affine is not None, RECTIFY=convolution.rectify, ALIGN=align, FOLDED=folded,
        BLOCK_F=block_f, TAPS=taps, WEIGHT_PIXELS=weight_pixels,
        BLOCK_C=block_c, FILTERS=min(block_f, 64), SOURCE_PIXELS=source_pixels,
        **weight_arguments(weights), **norms.backward_arguments(result),
    )  # fmt: skip
    return norms.gradients_of(d_weights, tensors["d_norm"])
