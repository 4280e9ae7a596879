"""The mean of relu over all pixels, forward and backward.

Mathematics:
    out[n, c] = sum over y, x of relu(scale z + shift) / (H W); backward h = g[n, c] / (H W) where
    scale z + shift > 0, dz = scale h, d_scale = sum of z h, d_shift = sum of h.

Shapes and strides:
    z and into (N, H, W, C), NHWC, pixels a number of units of ALIGN elements apart; out and g (N, C),
    contiguous; affine and d_affine (2, C) fp32; partial (programs and teams, 2, C) fp32.

Grid:
    forward (images, chunks of CHUNK channels); backward (programs, chunks), a program walking over tiles
    of PIXELS pixels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.activation import Accumulator
from pnas_fast.kernels.fused import Source
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton.device import CHUNK, PIXELS, activate, finish_affine, load_affine, widen
from pnas_fast.kernels.triton.launch import Tile, alignment, launch
from pnas_fast.kernels.triton.tiles import new_partials, spread

TILE = Tile(warps=4, registers=None, programs=4)


@triton.jit(do_not_specialize=["z_units"])
def average_kernel(
    z, affine, out, z_units, SIZE: tl.constexpr, C: tl.constexpr, AFFINE: tl.constexpr, ALIGN: tl.constexpr
):  # fmt: skip
    """See the top of the file."""
    image = tl.program_id(0)
    c = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    total = tl.zeros((PIXELS, CHUNK), tl.float32)
    for first in range(0, SIZE, PIXELS):
        p = first + tl.arange(0, PIXELS)
        mask = (p < SIZE)[:, None] & (c < C)[None, :]
        at = (image * SIZE + p)[:, None] * (z_units * ALIGN) + c[None, :]
        total += activate(tl.load(z + at, mask=mask, other=0.0), mask, scale, shift, AFFINE, True)
    tl.store(out + image * C + c, tl.sum(total, axis=0) / SIZE, mask=c < C)


@triton.jit(do_not_specialize=["N", "z_units", "into_units", "accumulate"])
def average_backward_kernel(
    z, affine, g, into, d_affine, accumulate, partial, tickets, N, z_units, into_units,
    SIZE: tl.constexpr, C: tl.constexpr, AFFINE: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, chunk = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    c = chunk * CHUNK + tl.arange(0, CHUNK)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    d_scale = tl.zeros((PIXELS, CHUNK), tl.float32)
    d_shift = tl.zeros((PIXELS, CHUNK), tl.float32)
    tiles = tl.cdiv(N * SIZE, PIXELS)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        mask = (p < N * SIZE)[:, None] & (c < C)[None, :]
        at = p[:, None] * (z_units * ALIGN) + c[None, :]
        value = widen(tl.load(z + at, mask=mask, other=0.0))
        h = widen(tl.load(g + (p // SIZE)[:, None] * C + c[None, :], mask=mask, other=0.0)) / SIZE
        h = tl.where(mask & (value * scale + shift > 0.0), h, 0.0)
        d_scale += h * value
        d_shift += h
        own = into + p[:, None] * (into_units * ALIGN) + c[None, :]
        share = h * scale + widen(tl.load(own, mask=mask & (accumulate != 0), other=0.0))
        tl.store(own, share, mask=mask)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, chunk, partial, d_affine, accumulate, tickets, 0, C
        )


def global_average(source: Source, out: Tensor) -> None:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.global_average`."""
    z = source.z
    n, c, h, w = z.shape
    align = alignment(c, pixel(z))
    launch(
        average_kernel, (n, -(-c // CHUNK.value)), TILE, reads=(z,), writes=(out,),
        z=z, affine=source.affine, out=out, SIZE=h * w, z_units=pixel(z) // align,
        C=c, AFFINE=source.affine is not None, ALIGN=align,
    )  # fmt: skip


def global_average_backward(source: Source, g: Tensor, into: Accumulator) -> None:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.global_average_backward`."""
    z = source.z
    n, c, h, w = z.shape
    chunks = -(-c // CHUNK.value)
    programs = spread(z.device, TILE, -(-n * h * w // PIXELS.value), chunks)
    align = alignment(c, pixel(z), pixel(into.z))
    launch(
        average_backward_kernel, (programs, chunks), TILE,
        reads=(z, g, into.z if into.accumulate else None), writes=(into.z,),
        scratch={"partial": new_partials(z.device, 1, programs, 2, c)},
        z=z, affine=source.affine, g=g, into=into.z, d_affine=into.affine,
        accumulate=int(into.accumulate), counters=chunks,
        N=n, SIZE=h * w, z_units=pixel(z) // align, into_units=pixel(into.z) // align,
        C=c, AFFINE=source.affine is not None, ALIGN=align,
    )  # fmt: skip
