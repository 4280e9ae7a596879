"""Dense convolution by implicit GEMM, forward: 1×1, 1×7, 7×1, the stem's 3×3, factorized reduction.

Mathematics:
    z'[n, y, x, f] = sum over i, j, c of weight[f, c, i, j] r[n, y sy - pad_y + i, x sx - pad_x + j, c] with
    r = scale z + shift, rectified if RECTIFY, 0 outside the image. Factorized: filters below F0 are
    those of the first weight; the others are of the second and read one pixel further down and right.
    In the epilogue, where a norm follows, statistics of z', of which the last program to come makes
    the batch norm.

Shapes and strides:
    z (N, H, W, C) and out (N, OH, OW, F), NHWC, pixels z_pixel and out_pixel elements apart (given in
    units of ALIGN); affine (2, C) fp32; weights (F0, C, KH, KW) and (F - F0, C, 1, 1) fp32 with any
    strides; sums (problems, programs and teams, 3, F) fp32.

Grid:
    (programs, blocks of BLOCK_F filters, those of the first weight first, problems). A program walks over
    tiles of PIXELS output pixels; for each it loops over taps and over chunks of CHUNK channels. FOLDED: all
    taps of few channels, the stem's, are one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Convolution, Normal
from pnas_fast.kernels.fused.primitives import Forward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import CHUNK, activate, load_affine, multiply, pick
from pnas_fast.kernels.triton.launch import alignment, launch
from pnas_fast.kernels.triton.problems import each
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, teams_of, tile_of


@triton.jit
def block_of_filters(block, F0, F1, BLOCK_F: tl.constexpr):
    """(half, filters within it, whether they exist) of a block of filters; half is 0 or 1."""
    blocks = tl.cdiv(F0, BLOCK_F)
    half = (block >= blocks).to(tl.int32)
    f = (block - half * blocks) * BLOCK_F + tl.arange(0, BLOCK_F)
    return half, f, f < F0 + half * (F1 - F0)


@triton.jit
def load_sources(
    z, image, y, x, ok, c, C, scale, shift, H, W, z_pixel, AFFINE: tl.constexpr, RECTIFY: tl.constexpr
):  # fmt: skip
    """r at pixels (y, x) of images, [pixels, channels] fp32."""
    inside = ok & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    mask = inside[:, None] & (c < C)[None, :]
    offsets = (image * H * W + y * W + x)[:, None] * z_pixel + c[None, :]
    return activate(tl.load(z + offsets, mask=mask, other=0.0), mask, scale, shift, AFFINE, RECTIFY)


@triton.jit
def load_folded(
    z, image, y, x, ok, q, H, W, z_pixel, scale_of, C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    by_c, by_y, by_x, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
):  # fmt: skip
    """r at all taps of pixels, [pixels, CHUNK] fp32: column q is what weight q of a filter, as it lies in
    memory, is multiplied by.
    """
    c, i, j = (q // by_c % C)[None, :], (q // by_y % KH)[None, :], (q // by_x % KW)[None, :]
    y, x = y[:, None] + i, x[:, None] + j
    mask = ok[:, None] & (q < C * KH * KW)[None, :] & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    scale, shift = 1.0, 0.0
    if AFFINE:
        scale = tl.load(scale_of + c, mask=(q < C * KH * KW)[None, :], other=0.0)
        shift = tl.load(scale_of + C + c, mask=(q < C * KH * KW)[None, :], other=0.0)
    offsets = (image[:, None] * H * W + y * W + x) * z_pixel + c
    return activate(tl.load(z + offsets, mask=mask, other=0.0), mask, scale, shift, AFFINE, RECTIFY)


@triton.jit(do_not_specialize=["N", "z_units", "out_units"])
def dense_kernel(
    z, affine, weight, second, out, sums, tickets,
    gamma, beta, running_mean, running_variance, batches, normal, statistics, count, momentum, eps,
    N, z_units, out_units, by_f, by_c, by_y, by_x, second_by_f, second_by_c,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, F0: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, AFFINE: tl.constexpr, RECTIFY: tl.constexpr,
    NORM: tl.constexpr, TRAINING: tl.constexpr, ALIGN: tl.constexpr, BLOCK_F: tl.constexpr,
    PIXELS: tl.constexpr, FOLDED: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, block = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    problem = tl.program_id(2)
    z, affine = pick(z, problem), pick(affine, problem)
    out, weight = pick(out, problem), pick(weight, problem)
    half, f, f_ok = block_of_filters(block, F0, F - F0, BLOCK_F)
    if second is not None:
        weight = tl.where(half == 1, pick(second, problem), weight)
        by_f = tl.where(half == 1, second_by_f, by_f)
        by_c = tl.where(half == 1, second_by_c, by_c)
    row, counted = norms.row_of(sums, problem, program, programs, F), 0.0
    tiles = tl.cdiv(N * OH * OW, PIXELS)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        ok = p < N * OH * OW
        image, y, x = p // (OH * OW), p // OW % OH * SY - PAD_Y + half, p % OW * SX - PAD_X + half
        total = tl.zeros((PIXELS, BLOCK_F), tl.float32)
        if FOLDED:
            q = tl.arange(0, CHUNK)
            r = load_folded(
                z, image, y, x, ok, q, H, W, z_units * ALIGN, affine, C, KH, KW, by_c, by_y, by_x,
                AFFINE, RECTIFY,
            )  # fmt: skip
            w_ok = (q < C * KH * KW)[:, None] & f_ok[None, :]
            w = tl.load(weight + f[None, :] * by_f + q[:, None], mask=w_ok, other=0.0)
            total = multiply(r, w, total, z.dtype.element_ty)
        for tap in range(0 if FOLDED else KH * KW):
            i, j = tap // KW, tap % KW
            for c0 in range(0, C, CHUNK):
                c = c0 + tl.arange(0, CHUNK)
                scale, shift = load_affine(affine, c, c < C, C, AFFINE)
                r = load_sources(
                    z, image, y + i, x + j, ok, c, C, scale, shift, H, W, z_units * ALIGN, AFFINE, RECTIFY
                )
                at = f[None, :] * by_f + c[:, None] * by_c + i * by_y + j * by_x
                w = tl.load(weight + at, mask=(c < C)[:, None] & f_ok[None, :], other=0.0)
                total = multiply(r, w, total, z.dtype.element_ty)
        at = p[:, None] * (out_units * ALIGN) + (f + half * F0)[None, :]
        tl.store(out + at, total, mask=ok[:, None] & f_ok[None, :])
        if TRAINING:
            number = tl.minimum(N * OH * OW - tile * PIXELS, PIXELS).to(tl.float32)
            counted = norms.count_values(total, ok, number, counted, row, f + half * F0, f_ok, F, False)
    if NORM:
        norms.finish_norm(
            f + half * F0, f_ok, program, programs, block, tl.num_programs(1), problem, sums, tickets,
            gamma, beta, running_mean, running_variance, batches, normal, statistics,
            count, momentum, eps, F, TRAINING,
        )  # fmt: skip


def weight_tensors(weights: Sequence[tuple[Tensor, ...]]) -> dict[str, tuple[Tensor, ...] | None]:
    """The kernels' view of each problem's weight or, for a factorized reduction, two."""
    return {
        "weight": each([own[0] for own in weights]),
        "second": each([own[1] if len(own) == 2 else None for own in weights]),
    }


def weight_arguments(weights: tuple[Tensor, ...]) -> dict[str, Any]:
    """The numbers of a weight or two."""
    by_f, by_c, by_y, by_x = weights[0].stride()
    return {
        "by_f": by_f, "by_c": by_c, "by_y": by_y, "by_x": by_x,
        "second_by_f": weights[-1].stride(0), "second_by_c": weights[-1].stride(1), "F0": weights[0].shape[0],
    }  # fmt: skip


def folds(weights: tuple[Tensor, ...]) -> bool:
    """Whether all taps and channels of a filter, as they lie in memory, are taken as channels of one tap."""
    weight = weights[0]
    taps = weight.shape[2] * weight.shape[3]
    size = taps * weight.shape[1]
    filters = sorted(zip(weight.stride()[1:], weight.shape[1:], strict=True))
    together = math.prod(size for _, size in filters) == 1 + sum(by * (size - 1) for by, size in filters)
    return len(weights) == 1 and taps > 1 and size <= CHUNK.value and together


def padding(convolution: Convolution, z: Tensor) -> tuple[int, int]:
    """Pixels of padding (above, left). A factorized reduction pads below and right only."""
    if convolution.kind == "factorized":
        return 0, 0
    pads = zip(z.shape[2:], convolution.kernel, convolution.stride, strict=True)
    above, left = (same_padding(size, kernel, stride)[0] for size, kernel, stride in pads)
    return above, left


def dense(convolution: Convolution, problems: Sequence[Forward]) -> list[Normal]:
    """Launch it; norms are none where none follows. See `pnas_fast.kernels.fused.Primitives.convolutions`."""
    (z, affine), weights, norm, out = problems[0]
    (n, c, h, w), (f, oh, ow) = z.shape, out.shape[1:]
    together = len(problems)
    block_f = block_of(z, max(weight.shape[0] for weight in weights))
    blocks = sum(-(-weight.shape[0] // block_f) for weight in weights)
    align = alignment(c, f, weights[0].shape[0], pixel(z), pixel(out))
    tile = tile_of("dense", z, block_f, align)
    pixels = min(max(64, 8192 // block_f), 256)
    programs = spread(z.device, tile, -(-n * oh * ow // pixels), blocks * together)
    pad_y, pad_x = padding(convolution, z)
    normals = [norms.new_normal(problem.norm) for problem in problems if problem.norm is not None]
    launch(
        dense_kernel, (programs, blocks, together), tile,
        reads=[x for own in problems for x in (own.source.z, *own.weights)],
        writes=[own.out for own in problems],
        scratch={"sums": new_partials(z.device, together, programs, 3, f)},
        products=together * sum(weight.numel() for weight in weights) * n * oh * ow,
        problems={
            "z": each([own.source.z for own in problems]),
            "affine": each([own.source.affine for own in problems]),
            "out": each([own.out for own in problems]),
            **weight_tensors([own.weights for own in problems]),
            **norms.forward_tensors([own.norm for own in problems], normals),
        },
        counters=together * (blocks * (1 + teams_of(programs)) + 1),
        N=n, H=h, W=w, OH=oh, OW=ow, PAD_Y=pad_y, PAD_X=pad_x,
        z_units=pixel(z) // align, out_units=pixel(out) // align,
        C=c, F=f, KH=convolution.kernel[0], KW=convolution.kernel[1],
        SY=convolution.stride[0], SX=convolution.stride[1], AFFINE=affine is not None,
        RECTIFY=convolution.rectify, ALIGN=align, BLOCK_F=block_f, PIXELS=pixels, FOLDED=folds(weights),
        **weight_arguments(weights), **norms.forward_arguments(norm, out),
    )  # fmt: skip
    return normals
