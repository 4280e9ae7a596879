"""One half of a separable convolution, forward.

Mathematics:
    z'[n, y, x, f] = sum over c of pointwise[f, c] d[n, y, x, c] with
    d[n, y, x, c] = sum over i, j of depthwise[c, i, j] r[n, y s - pad + i D, x s - pad + j D, c] and
    r = relu(scale z + shift), 0 outside the image. In the epilogue statistics of z', of which
    the last program to come makes the batch norm.

Shapes and strides:
    z (N, H, W, C) and out (N, OH, OW, F), NHWC, pixels z_pixel and out_pixel elements apart (given in
    units of ALIGN); affine (2, C) fp32; depthwise (C, 1, k, k) and pointwise (F, C, 1, 1) fp32 with any
    strides, fast where they are ARRANGED; sums (problems, programs and teams, 3, F)
    fp32.

Grid:
    (programs, groups of BLOCK_F filters, problems). A program walks over tiles of 2 rows of LANES strips
    of COLS columns (see `strips`) and takes channels CHUNK at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Convolution, Normal
from pnas_fast.kernels.fused.primitives import Forward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import CHUNK, load_affine, multiply, pick
from pnas_fast.kernels.triton.launch import alignment, launch
from pnas_fast.kernels.triton.problems import each
from pnas_fast.kernels.triton.strips import (
    convolve,
    pairs_of_rows,
    place_in_tile,
    rows_apart,
    stack,
    stand_in,
    upper_row,
)
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, teams_of, tile_of


@triton.jit
def load_pointwise(pointwise, f, c, F: tl.constexpr, C: tl.constexpr, by_f, by_k, ARRANGED: tl.constexpr):
    """[filters, channels]."""
    mask = (f < F)[:, None] & (c < C)[None, :]
    if ARRANGED:
        at = f[:, None] * C + c[None, :]
    else:
        at = f[:, None] * by_f + c[None, :] * by_k
    return tl.load(pointwise + at, mask=mask, other=0.0)


@triton.jit(do_not_specialize=["N", "z_units", "out_units"])
def separable_kernel(
    z, affine, depthwise, pointwise, out, sums, tickets,
    gamma, beta, running_mean, running_variance, batches, normal, statistics, count, momentum, eps,
    N, z_units, out_units, by_c, by_y, by_x, by_f, by_k,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, NORM: tl.constexpr,
    TRAINING: tl.constexpr, ARRANGED: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_F: tl.constexpr, LANES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, group = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    problem = tl.program_id(2)
    z, affine, out = pick(z, problem), pick(affine, problem), pick(out, problem)
    depthwise, pointwise = pick(depthwise, problem), pick(pointwise, problem)
    z_pixel, out_pixel = z_units * ALIGN, out_units * ALIGN
    f = group * BLOCK_F + tl.arange(0, BLOCK_F)
    f_ok = f < F
    SIZE: tl.constexpr = 2 * LANES * COLS
    row = norms.row_of(sums, problem, program, programs, F)
    pairs: tl.constexpr = pairs_of_rows(OH, S, D)
    strips = tl.cdiv(OW, COLS)
    # Beside the sums of so many pixels, 49 taps of loads that begin at once do not fit into 128 registers.
    WIDTH: tl.constexpr = 0 if K == 7 and BLOCK_F <= 32 else OW
    kept = (0.0, tl.zeros((BLOCK_F,), tl.float32), tl.zeros((BLOCK_F,), tl.float32))
    tiles = pairs * tl.cdiv(N * strips, LANES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        first, oy = tile // pairs * LANES, upper_row(tile % pairs, S, D)
        lane = first + tl.arange(0, LANES)
        # Strips that do not exist read the last one's pixels, of which its shift leaves nothing.
        lane_ok = lane < N * strips
        lane = tl.minimum(lane, N * strips - 1)
        total = tl.zeros((BLOCK_F, SIZE), tl.float32)
        for c0 in tl.range(0, C, CHUNK, disable_licm=True):
            c = c0 + tl.arange(0, CHUNK)
            scale, shift = load_affine(affine, c, c < C, C, AFFINE)
            if AFFINE:
                shift = tl.where(lane_ok[:, None], shift, float("-inf"))
            upper, lower = convolve(
                z, depthwise, lane // strips * H * W, oy * S - PAD_Y, lane % strips * COLS * S - PAD_X,
                lane_ok, stand_in(c, C), scale, shift, H, W, z_pixel, by_c, by_y, by_x, N >> 30,
                C, K, S, D, 0, PAD_X, False, AFFINE, True, ARRANGED, LANES, COLS, CHUNK, WIDTH,
            )  # fmt: skip
            w = load_pointwise(pointwise, f, c, F, C, by_f, by_k, ARRANGED)
            pixels = tl.trans(stack(upper, lower, LANES, COLS))
            total = multiply(w, pixels, total, z.dtype.element_ty)
        lane, half, column = place_in_tile(LANES, COLS)
        lane += first
        y, x = oy + half * rows_apart(S, D), lane % strips * COLS + column
        ok = (lane < N * strips) & (y < OH) & (x < OW)
        at = (lane // strips * OH * OW + y * OW + x)[:, None] * out_pixel + f[None, :]
        tl.store(out + at, tl.trans(total), mask=ok[:, None] & f_ok[None, :])
        if TRAINING:
            # Of strips that do not exist everything is 0, but one may end outside of its image.
            partial: tl.constexpr = 2 * pairs != OH or OW % COLS != 0
            number = (
                tl.sum(ok.to(tl.float32)) if partial else tl.minimum(N * strips - first, LANES) * 2.0 * COLS
            )
            kept = norms.keep_values(total, ok, number, kept, partial)
    if TRAINING:
        counted, mean, squares = kept
        norms.write_row(row, mean, squares, counted, f, f_ok, F)
    if NORM:
        norms.finish_norm(
            f, f_ok, program, programs, group, tl.num_programs(1), problem, sums, tickets,
            gamma, beta, running_mean, running_variance, batches, normal, statistics,
            count, momentum, eps, F, TRAINING,
        )  # fmt: skip


def arranged(depthwise: Tensor, pointwise: Tensor) -> bool:
    """Whether (C, 1, K, K) lies in memory as (K, K, C) and (F, C, 1, 1) as (F, C): channels side by side."""
    c, _, _, k = depthwise.shape
    taps = (depthwise.stride(0), depthwise.stride(2), depthwise.stride(3))
    return (*taps, *pointwise.stride()[:2]) == (1, k * c, c, c, 1)


def strips_of(block_f: int, chunks: int, warps: int) -> tuple[int, int]:
    """(strips of a tile, columns of a strip): as many as leave a tile's sums in registers.

    Where there are chunks of channels, a tile's sums over filters wait while the next chunk is convolved.
    """
    if block_f > 64:
        return 16, 2
    return (4 if block_f <= 32 and chunks == 1 else 2) * warps, 4


def separable(convolution: Convolution, problems: Sequence[Forward]) -> list[Normal]:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolutions`."""
    (z, _), (depthwise, pointwise), _, out = problems[0]
    (n, c, h, w), (f, oh, ow) = z.shape, out.shape[1:]
    k, stride, dilation = convolution.kernel[0], convolution.stride[0], convolution.dilation
    block_f, together = block_of(z, f), len(problems)
    groups = -(-f // block_f)
    align = alignment(c, f, pixel(z), pixel(out))
    tile = tile_of(f"separable {k}", z, block_f, align, c)
    lanes, columns = strips_of(block_f, -(-c // CHUNK.value), tile.warps)
    tiles = pairs_of_rows(oh, stride, dilation) * -(-n * -(-ow // columns) // lanes)
    programs = spread(z.device, tile, tiles, groups * together)
    normals = [norms.new_normal(problem.norm) for problem in problems if problem.norm is not None]
    launch(
        separable_kernel, (programs, groups, together), tile,
        reads=[x for problem in problems for x in (problem.source.z, *problem.weights)],
        writes=[problem.out for problem in problems],
        scratch={"sums": new_partials(z.device, together, programs, 3, f)},
        products=together * out.numel() * c, taps=together * n * oh * ow * c * k * k,
        problems={
            "z": each([problem.source.z for problem in problems]),
            "affine": each([problem.source.affine for problem in problems]),
            "depthwise": each([problem.weights[0] for problem in problems]),
            "pointwise": each([problem.weights[1] for problem in problems]),
            "out": each([problem.out for problem in problems]),
            **norms.forward_tensors([problem.norm for problem in problems], normals),
        },
        counters=together * (groups * (1 + teams_of(programs)) + 1),
        N=n, H=h, W=w, OH=oh, OW=ow,
        PAD_Y=same_padding(h, k, stride, dilation)[0], PAD_X=same_padding(w, k, stride, dilation)[0],
        z_units=pixel(z) // align, out_units=pixel(out) // align,
        by_c=depthwise.stride(0), by_y=depthwise.stride(2), by_x=depthwise.stride(3),
        by_f=pointwise.stride(0), by_k=pointwise.stride(1),
        C=c, F=f, K=k, S=stride, D=dilation, AFFINE=problems[0].source.affine is not None,
        ARRANGED=arranged(depthwise, pointwise), ALIGN=align, BLOCK_F=block_f, LANES=lanes, COLS=columns,
        **norms.forward_arguments(problems[0].norm, out),
    )  # fmt: skip
    return normals
