"""Pointwise convolution of stride 1, backward: one pass over its input and its output.

Mathematics, with dz' = g + offset + slope z' (see `norm`) and r = scale z + shift, rectified if RECTIFY:
    d_weight = sum over pixels of dz'^T r; dr = dz' weight; dz = scale dr where r > 0 or nothing was
    rectified, d_scale = sum of z dr and d_shift = sum of dr there.

Shapes and strides:
    z and into (N, H, W, C), g and result (N, H, W, F), NHWC, pixels of each a number of units of ALIGN
    elements apart; weight and d_weight (F, C, 1, 1) fp32 with any strides; affine and d_affine (2, C),
    d_norm (2, F) fp32. Partial results are fp32: weights (chunks, programs, BLOCK_F CHUNK), affine
    (chunks, programs, 2 CHUNK). F is at most BLOCK_F.

Grid:
    (programs, chunks of CHUNK channels). A program walks over tiles of PIXELS pixels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.activation import Accumulator
from pnas_fast.kernels.fused import Convolution, Gradients, Result, Source
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import (
    CHUNK,
    PIXELS,
    activate,
    finish_affine,
    finish_weights,
    load_affine,
    multiply,
)
from pnas_fast.kernels.triton.launch import alignment, launch, pixel, tickets
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, tile_of


@triton.jit(do_not_specialize=["SIZE", "z_units", "g_units", "result_units", "into_units"])
def pointwise_backward_kernel(
    z, affine, weight, result, g, statistics, d_normal, gamma, d_norm, into, d_affine, d_weight,
    weight_partial, source_partial, tickets, inverse_count,
    SIZE, z_units, g_units, result_units, into_units, by_f, by_c,
    C: tl.constexpr, F: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr, NORM: tl.constexpr,
    ACCUMULATE: tl.constexpr, ALIGN: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, chunk = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    c = chunk * CHUNK + tl.arange(0, CHUNK)
    f = tl.arange(0, BLOCK_F)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    offset = tl.zeros((BLOCK_F,), tl.float32)
    slope = tl.zeros((BLOCK_F,), tl.float32)
    if NORM:
        offset, slope, d_gamma, d_beta = norms.norm_gradient(
            d_normal, statistics, gamma, f, f < F, inverse_count, F
        )
        first = (f < F) & (program == 0) & (chunk == 0)
        tl.store(d_norm + f, d_gamma, mask=first)
        tl.store(d_norm + F + f, d_beta, mask=first)
    w_ok = (f < F)[:, None] & (c < C)[None, :]
    w = tl.load(weight + f[:, None] * by_f + c[None, :] * by_c, mask=w_ok, other=0.0)
    total = tl.zeros((BLOCK_F, CHUNK), tl.float32)
    d_scale = tl.zeros((PIXELS, CHUNK), tl.float32)
    d_shift = tl.zeros((PIXELS, CHUNK), tl.float32)
    for tile in range(program, tl.cdiv(SIZE, PIXELS), programs):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        p = p[:, None]
        f_mask, mask = (p < SIZE) & (f < F)[None, :], (p < SIZE) & (c < C)[None, :]
        at_g, at_z = p * (g_units * ALIGN) + f[None, :], p * (result_units * ALIGN) + f[None, :]
        dz = norms.load_gradient(g, result, at_g, at_z, f_mask, offset, slope, NORM)
        value = tl.load(z + p * (z_units * ALIGN) + c[None, :], mask=mask, other=0.0).to(tl.float32)
        r = activate(value, mask, scale, shift, AFFINE, RECTIFY)
        total = multiply(tl.trans(dz), r, total, z.dtype.element_ty)
        dr = multiply(dz, w, tl.zeros((PIXELS, CHUNK), tl.float32), z.dtype.element_ty)
        if RECTIFY:
            dr = tl.where(r > 0.0, dr, 0.0)
        d_scale += dr * value
        d_shift += dr
        share = dr * scale
        at = p * (into_units * ALIGN) + c[None, :]
        if ACCUMULATE:
            share += tl.load(into + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(into + at, share, mask=mask)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, chunk, source_partial, d_affine, tickets, 0, C, ACCUMULATE
        )
    finish_weights(
        total, program, programs, chunk, weight_partial, d_weight, tickets, tl.num_programs(1),
        0, F, chunk * CHUNK, C, by_f, by_c, BLOCK_F,
    )  # fmt: skip


def serves(convolution: Convolution, z: Tensor, filters: int) -> bool:
    """Whether this kernel can do a dense convolution's backward."""
    pointwise = convolution.kind == "dense" and convolution.kernel == convolution.stride == (1, 1)
    return pointwise and filters <= block_of(z, filters)


def pointwise_backward(
    convolution: Convolution, source: Source, weight: Tensor, result: Result, into: Accumulator
) -> Gradients:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolution_backward`."""
    z = source.z
    (n, c, h, w), f = z.shape, result.z.shape[1]
    block_f, chunks = block_of(z, f), -(-c // CHUNK.value)
    align = alignment(c, f, *(pixel(x) for x in (z, result.z, result.g, into.z)))
    tile = tile_of("pointwise_backward", z, block_f, align)
    programs = spread(z.device, tile, -(-n * h * w // PIXELS.value), chunks)
    d_weight = torch.empty_like(weight)
    norm = norms.backward_arguments(result)
    launch(
        pointwise_backward_kernel, (programs, chunks), tile,
        reads=(
            *(z, result.z if result.normal is not None else None, result.g, weight),
            into.z if into.accumulate else None,
        ),
        writes=(into.z, d_weight),
        scratch={
            "weight_partial": new_partials(z.device, chunks, programs, block_f * CHUNK.value),
            "source_partial": new_partials(z.device, chunks, programs, 2 * CHUNK.value),
        },
        products=2 * weight.numel() * n * h * w,
        z=z, affine=source.affine, weight=weight, into=into.z, d_affine=into.affine, d_weight=d_weight,
        tickets=tickets(z.device),
        SIZE=n * h * w, z_units=pixel(z) // align, g_units=pixel(result.g) // align,
        result_units=pixel(result.z) // align, into_units=pixel(into.z) // align,
        by_f=weight.stride(0), by_c=weight.stride(1), C=c, AFFINE=source.affine is not None,
        RECTIFY=convolution.rectify, ACCUMULATE=into.accumulate, ALIGN=align, BLOCK_F=block_f, **norm,
    )  # fmt: skip
    return norms.gradients_of((d_weight,), norm["d_norm"])
