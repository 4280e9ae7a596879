"""Pointwise convolution of stride 1, backward: one pass over its input and its output.

Mathematics, with dz' = g + offset + slope z' (see `norm`) and r = scale z + shift, rectified if RECTIFY:
    d_weight = sum over pixels of dz'^T r; dr = dz' weight; dz = scale dr where r > 0 or nothing was
    rectified, d_scale = sum of z dr and d_shift = sum of dr there.

Shapes and strides:
    z and into (N, H, W, C), g and result (N, H, W, F), NHWC, pixels of each a number of units of ALIGN
    elements apart; weight and d_weight (F, C, 1, 1) fp32 with any strides; affine and d_affine (2, C),
    d_norm (2, F) fp32. Partial results are fp32: weights (problems, programs and teams, F, C),
    affine (problems, programs and teams, 2, C). F is at most BLOCK_F.

Grid:
    (programs, chunks of CHUNK channels, problems). A program walks over tiles of TILE pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.fused import Convolution, Gradients
from pnas_fast.kernels.fused.primitives import Backward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import (
    CHUNK,
    activate,
    finish_affine,
    finish_weights,
    keep_weights,
    load_affine,
    multiply,
    pick,
    rows_of,
    tickets_of,
    widen,
)
from pnas_fast.kernels.triton.launch import alignment, capability, launch
from pnas_fast.kernels.triton.problems import accumulators, added_to, each, kept, new_like
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, teams_of, tile_of


@triton.jit(do_not_specialize=["SIZE", "z_units", "g_units", "result_units", "into_units", "accumulate"])
def pointwise_backward_kernel(
    z, affine, weight, result, g, statistics, d_normal, gamma, d_norm, into, d_affine, accumulate,
    d_weight, weight_partial, source_partial, tickets, inverse_count,
    SIZE, z_units, g_units, result_units, into_units, by_f, by_c,
    C: tl.constexpr, F: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr, NORM: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_F: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, chunk = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    problem = tl.program_id(2)
    chunks = tl.num_programs(1)
    z, affine = pick(z, problem), pick(affine, problem)
    weight, gamma = pick(weight, problem), pick(gamma, problem)
    result, g, into = pick(result, problem), pick(g, problem), pick(into, problem)
    statistics, d_normal, d_norm = pick(statistics, problem), pick(d_normal, problem), pick(d_norm, problem)
    accumulate = (accumulate >> problem) & 1
    tickets += problem * chunks * (1 + tickets_of(programs))
    c = chunk * CHUNK + tl.arange(0, CHUNK)
    f = tl.arange(0, BLOCK_F)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    offset = tl.zeros((BLOCK_F,), tl.float32)
    slope = tl.zeros((BLOCK_F,), tl.float32)
    if NORM:
        offset, slope, d_gamma, d_beta, _ = norms.norm_gradient(
            d_normal, statistics, gamma, f, f < F, inverse_count, F
        )
        first = (f < F) & (program == 0) & (chunk == 0)
        tl.store(d_norm + f, d_gamma, mask=first)
        tl.store(d_norm + F + f, d_beta, mask=first)
    w_ok = (f < F)[:, None] & (c < C)[None, :]
    w = tl.load(weight + f[:, None] * by_f + c[None, :] * by_c, mask=w_ok, other=0.0)
    total = tl.zeros((BLOCK_F, CHUNK), tl.float32)
    d_scale = tl.zeros((TILE, CHUNK), tl.float32)
    d_shift = tl.zeros((TILE, CHUNK), tl.float32)
    tiles = tl.cdiv(SIZE, TILE)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        p = tile * TILE + tl.arange(0, TILE)
        p = p[:, None]
        f_mask, mask = (p < SIZE) & (f < F)[None, :], (p < SIZE) & (c < C)[None, :]
        at_g, at_z = p * (g_units * ALIGN) + f[None, :], p * (result_units * ALIGN) + f[None, :]
        dz = norms.load_gradient(g, result, at_g, at_z, f_mask, offset, slope, NORM)
        value = widen(tl.load(z + p * (z_units * ALIGN) + c[None, :], mask=mask, other=0.0))
        r = activate(value, mask, scale, shift, AFFINE, RECTIFY)
        total = multiply(tl.trans(dz), r, total, z.dtype.element_ty)
        dr = multiply(dz, w, tl.zeros((TILE, CHUNK), tl.float32), z.dtype.element_ty)
        if RECTIFY:
            dr = tl.where(r > 0.0, dr, 0.0)
        d_scale += dr * value
        d_shift += dr
        own = into + p * (into_units * ALIGN) + c[None, :]
        share = dr * scale + widen(tl.load(own, mask=mask & (accumulate != 0), other=0.0))
        tl.store(own, share, mask=mask)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, chunk, source_partial + problem * rows_of(programs) * 2 * C,
            pick(d_affine, problem), accumulate, tickets, 0, C,
        )  # fmt: skip
    weight_partial += problem * rows_of(programs) * F * C
    keep_weights(total, weight_partial + program * F * C, 0, F, chunk * CHUNK, C, BLOCK_F)
    finish_weights(
        program, programs, chunk, weight_partial, F * C, pick(d_weight, problem), tickets, chunks,
        0, F, chunk * CHUNK, C, by_f, by_c, BLOCK_F,
    )  # fmt: skip


def serves(convolution: Convolution, z: Tensor, filters: int) -> bool:
    """Whether this kernel can do a dense convolution's backward."""
    pointwise = convolution.kind == "dense" and convolution.kernel == convolution.stride == (1, 1)
    return pointwise and filters <= block_of(z, filters)


def pointwise_backward(convolution: Convolution, problems: Sequence[Backward]) -> list[Gradients]:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolutions_backward`."""
    (z, affine), (weight,), result, into = problems[0]
    assert into is not None
    (n, c, h, w), f = z.shape, result.z.shape[1]
    block_f, chunks, together = block_of(z, f), -(-c // CHUNK.value), len(problems)
    align = alignment(c, f, *(pixel(x) for x in (z, result.z, result.g, into.z)))
    tile = tile_of("pointwise_backward", z, block_f, align)
    # Products of fp32 are three, of operands split in two: fewer pixels fit in registers. Before Hopper
    # operands of products are in registers too, and of 32 filters everywhere.
    many = block_f == 64 and capability(z.device) >= 90
    pixels = 32 if z.element_size() == 4 else 128 if many else 64
    programs = spread(z.device, tile, -(-n * h * w // pixels), chunks * together)
    d_weights = [new_like(own.weights) for own in problems]
    sinks, tensors = [own.into for own in problems], norms.backward_tensors([own.result for own in problems])
    reads = []
    for own in problems:
        normed = own.result.z if own.result.normal is not None else None
        reads += [own.source.z, normed, own.result.g, *own.weights]
    launch(
        pointwise_backward_kernel, (programs, chunks, together), tile,
        reads=[*reads, *kept(sinks)],
        writes=[*(x for own in d_weights for x in own), *(sink.z for sink in sinks if sink is not None)],
        scratch={
            "weight_partial": new_partials(z.device, together, programs, f, c),
            "source_partial": new_partials(z.device, together, programs, 2, c),
        },
        products=2 * together * weight.numel() * n * h * w,
        problems={
            "z": each([own.source.z for own in problems]),
            "affine": each([own.source.affine for own in problems]),
            "weight": each([own.weights[0] for own in problems]),
            "d_weight": each([own[0] for own in d_weights]),
            **accumulators(sinks), **tensors,
        },
        accumulate=added_to(sinks), counters=together * chunks * (2 + teams_of(programs)),
        SIZE=n * h * w, z_units=pixel(z) // align, g_units=pixel(result.g) // align,
        result_units=pixel(result.z) // align, into_units=pixel(into.z) // align,
        by_f=weight.stride(0), by_c=weight.stride(1), C=c, AFFINE=affine is not None,
        RECTIFY=convolution.rectify, ALIGN=align, BLOCK_F=block_f, TILE=pixels,
        **norms.backward_arguments(result),
    )  # fmt: skip
    return norms.gradients_of(d_weights, tensors["d_norm"])
