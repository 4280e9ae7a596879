"""One half of a separable convolution, forward.

Mathematics:
    z'[n, y, x, f] = sum over c of pointwise[f, c] d[n, y, x, c] with
    d[n, y, x, c] = sum over i, j of depthwise[c, i, j] r[n, y s - pad + i D, x s - pad + j D, c] and
    r = relu(scale z + shift), 0 outside the image. In the epilogue statistics of z', of which
    the last program to come makes the batch norm.

Shapes and strides:
    z (N, H, W, C) and out (N, OH, OW, F), NHWC, pixels z_pixel and out_pixel elements apart (given in
    units of ALIGN); affine (2, C) fp32; depthwise (C, 1, k, k) and pointwise (F, C, 1, 1) fp32 with any
    strides; packed (problems, programs, groups, k k, C rounded up to CHUNK), in z's dtype: depthwise
    weights as the taps are read, channels side by side; sums (problems, programs, 3, F) fp32.

Grid:
    (programs, groups of BLOCK_F filters, problems). A program walks over tiles of 2 rows × LANES columns
    and takes channels CHUNK at a time. A shifted row of the input, loaded once, feeds both output rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Convolution, Normal
from pnas_fast.kernels.fused.problems import Forward
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import CHUNK, LANES, activate, load_affine, multiply, pick
from pnas_fast.kernels.triton.launch import alignment, launch, pixel, tickets
from pnas_fast.kernels.triton.problems import each
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, tile_of


@triton.jit
def pack(
    depthwise, packed, c, C, by_c, by_y, by_x, WIDTH, K: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Write the weights of channels c as (K, K, WIDTH); the program reads them after a barrier."""
    j = tl.arange(0, COLUMNS)
    stored = (j < K)[:, None] & (c >= 0)[None, :]
    for i in range(K):
        at = i * by_y + j[:, None] * by_x + c[None, :] * by_c
        weights = tl.load(depthwise + at, mask=stored & (c < C)[None, :], other=0.0)
        tl.store(packed + (i * K + j[:, None]) * WIDTH + c[None, :], weights, mask=stored)


@triton.jit
def load_tap(packed, row, j, c, WIDTH, K: tl.constexpr, D: tl.constexpr):
    """Weights of one tap, a copy for each lane: loaded as the activations are, without an exchange.

    Rows are those of the dilated kernel; those between its taps, above and below it are zero.
    """
    lanes = tl.zeros((LANES, 1), tl.int32)
    exists = (row >= 0) & (row <= (K - 1) * D) & (row % D == 0)
    at = (row // D * K + j) * WIDTH + c[None, :] + lanes
    return tl.load(packed + at, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def depthwise_rows(
    z, packed, image, y, x, lane_ok, c, c_ok, scale, shift, H, W, z_pixel, WIDTH,
    K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    """Two rows of d, [LANES, CHUNK] fp32 each; (y, x) is the first input pixel of the upper."""
    upper = tl.zeros((LANES, CHUNK), tl.float32)
    lower = tl.zeros((LANES, CHUNK), tl.float32)
    for row in range((K - 1) * D + 1 + S):
        row_ok = lane_ok & (y + row >= 0) & (y + row < H)
        for j in tl.static_range(K):
            at = x + j * D
            mask = (row_ok & (at >= 0) & (at < W))[:, None] & c_ok[None, :]
            offsets = (image + (y + row) * W + at)[:, None] * z_pixel + c[None, :]
            value = activate(tl.load(z + offsets, mask=mask, other=0.0), mask, scale, shift, AFFINE, True)
            upper += load_tap(packed, row, j, c, WIDTH, K, D) * value
            lower += load_tap(packed, row - S, j, c, WIDTH, K, D) * value
    return upper, lower


@triton.jit(do_not_specialize=["N", "H", "W", "OH", "OW", "z_units", "out_units", "pad_y", "pad_x"])
def separable_kernel(
    z, affine, depthwise, pointwise, out, packed, sums, tickets,
    gamma, beta, running_mean, running_variance, batches, normal, statistics, count, momentum, eps,
    N, H, W, OH, OW, pad_y, pad_x, z_units, out_units, by_c, by_y, by_x, by_f, by_k,
    C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    AFFINE: tl.constexpr, NORM: tl.constexpr, TRAINING: tl.constexpr,
    ALIGN: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, group = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    problem = tl.program_id(2)
    z, affine, out = pick(z, problem), pick(affine, problem), pick(out, problem)
    depthwise, pointwise = pick(depthwise, problem), pick(pointwise, problem)
    z_pixel, out_pixel = z_units * ALIGN, out_units * ALIGN
    packed += ((problem * programs + program) * tl.num_programs(1) + group) * K * K * WIDTH
    for c0 in range(0, C, CHUNK):
        pack(depthwise, packed, c0 + tl.arange(0, CHUNK), C, by_c, by_y, by_x, WIDTH, K, COLUMNS)
    tl.debug_barrier()
    f = group * BLOCK_F + tl.arange(0, BLOCK_F)
    f_ok = f < F
    counted = 0.0
    pivot = tl.zeros((BLOCK_F,), tl.float32)
    ones = tl.zeros((BLOCK_F,), tl.float32)
    squares = tl.zeros((BLOCK_F,), tl.float32)
    pairs = (OH + 1) // 2
    for tile in range(program, pairs * tl.cdiv(N * OW, LANES), programs):
        lane = tile // pairs * LANES + tl.arange(0, LANES)
        oy = tile % pairs * 2
        lane_ok = lane < N * OW
        ox = lane % OW
        upper = tl.zeros((LANES, BLOCK_F), tl.float32)
        lower = tl.zeros((LANES, BLOCK_F), tl.float32)
        for c0 in range(0, C, CHUNK):
            c = c0 + tl.arange(0, CHUNK)
            scale, shift = load_affine(affine, c, c < C, C, AFFINE)
            above, below = depthwise_rows(
                z, packed, lane // OW * H * W, oy * S - pad_y, ox * S - pad_x, lane_ok, c, c < C,
                scale, shift, H, W, z_pixel, WIDTH, K, S, D, AFFINE,
            )  # fmt: skip
            w_ok = (c < C)[:, None] & f_ok[None, :]
            w = tl.load(pointwise + f[None, :] * by_f + c[:, None] * by_k, mask=w_ok, other=0.0)
            upper = multiply(above, w, upper, z.dtype.element_ty)
            lower = multiply(below, w, lower, z.dtype.element_ty)
        at = (lane // OW * OH * OW + oy * OW + ox)[:, None] * out_pixel + f[None, :]
        mask = lane_ok[:, None] & f_ok[None, :]
        rounded = upper.to(out.dtype.element_ty)
        tl.store(out + at, rounded, mask=mask)
        # Statistics are of what was stored.
        if TRAINING:
            counted, pivot, ones, squares = norms.count_values(
                rounded.to(tl.float32), lane_ok, counted, pivot, ones, squares
            )
        rounded = lower.to(out.dtype.element_ty)
        below_ok = lane_ok & (oy + 1 < OH)
        tl.store(out + at + OW * out_pixel, rounded, mask=mask & below_ok[:, None])
        if TRAINING:
            counted, pivot, ones, squares = norms.count_values(
                rounded.to(tl.float32), below_ok, counted, pivot, ones, squares
            )
    if NORM:
        norms.finish_norm(
            counted, pivot, ones, squares, f, f_ok,
            program, programs, group, tl.num_programs(1), problem, sums, tickets,
            gamma, beta, running_mean, running_variance, batches, normal, statistics,
            count, momentum, eps, F, TRAINING,
        )  # fmt: skip


def separable(convolution: Convolution, problems: Sequence[Forward]) -> list[Normal]:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolution`."""
    (z, _), (depthwise, pointwise), _, out = problems[0]
    (n, c, h, w), (f, oh, ow) = z.shape, out.shape[1:]
    k, stride, dilation = convolution.kernel[0], convolution.stride[0], convolution.dilation
    block_f, together = block_of(z, f), len(problems)
    groups = -(-f // block_f)
    align = alignment(c, f, pixel(z), pixel(out))
    tile = tile_of(f"separable {k}", z, block_f, align, c)
    programs = spread(z.device, tile, -(-oh // 2) * -(-n * ow // LANES.value), groups * together)
    width = -(-c // CHUNK.value) * CHUNK.value
    normals = [norms.new_normal(problem.norm) for problem in problems if problem.norm is not None]
    scratch = {
        "packed": z.new_empty(together, programs, groups, k, k, width),
        "sums": new_partials(z.device, together, programs, 3, f),
    }
    launch(
        separable_kernel, (programs, groups, together), tile,
        reads=[x for problem in problems for x in (problem.source.z, *problem.weights)],
        writes=[problem.out for problem in problems], scratch=scratch,
        products=together * out.numel() * c, taps=together * n * oh * ow * c * k * k,
        problems={
            "z": each([problem.source.z for problem in problems]),
            "affine": each([problem.source.affine for problem in problems]),
            "depthwise": each([problem.weights[0] for problem in problems]),
            "pointwise": each([problem.weights[1] for problem in problems]),
            "out": each([problem.out for problem in problems]),
            **norms.forward_tensors([problem.norm for problem in problems], normals),
        },
        tickets=tickets(z.device),
        N=n, H=h, W=w, OH=oh, OW=ow,
        pad_y=same_padding(h, k, stride, dilation)[0], pad_x=same_padding(w, k, stride, dilation)[0],
        z_units=pixel(z) // align, out_units=pixel(out) // align,
        by_c=depthwise.stride(0), by_y=depthwise.stride(2), by_x=depthwise.stride(3),
        by_f=pointwise.stride(0), by_k=pointwise.stride(1),
        C=c, F=f, K=k, S=stride, D=dilation, AFFINE=problems[0].source.affine is not None,
        ALIGN=align, WIDTH=width, COLUMNS=triton.next_power_of_2(k), BLOCK_F=block_f,
        **norms.forward_arguments(problems[0].norm, out),
    )  # fmt: skip
    return normals
