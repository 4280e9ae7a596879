"""One half of a separable convolution, forward.

Mathematics:
    z'[n, y, x, f] = sum over c of pointwise[f, c] d[n, y, x, c] with
    d[n, y, x, c] = sum over i, j of depthwise[c, i, j] r[n, y s - pad + i D, x s - pad + j D, c] and
    r = relu(scale z + shift), 0 outside the image. In the epilogue statistics of z', of which
    the last program to come makes the batch norm.

Shapes and strides:
    z (N, H, W, C) and out (N, OH, OW, F), NHWC, pixels z_pixel and out_pixel elements apart (given in
    units of ALIGN); affine (2, C) fp32; depthwise (C, 1, k, k) and pointwise (F, C, 1, 1) fp32 with any
    strides; packed (programs, k k, C rounded up to CHUNK), in z's dtype: depthwise weights as the taps
    are read, channels side by side; sums (programs, 3, F) fp32.

Grid:
    (programs, groups of BLOCK_F filters). A program walks over tiles of 2 rows × LANES columns and takes
    channels CHUNK at a time. A shifted row of the input, loaded once, feeds both output rows.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, nn

from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Convolution, Normal, Source
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import CHUNK, LANES, activate, load_affine, multiply
from pnas_fast.kernels.triton.launch import alignment, launch, pixel, tickets
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, tile_of


@triton.jit
def pack(
    depthwise, packed, c, C, by_c, by_y, by_x, WIDTH,
    K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the weights of channels c as (rows, K, WIDTH); the program reads them after a barrier.

    Rows are those of the dilated kernel with S rows of zeros above and below, so that the loop over
    input rows needs no case for rows which only one of two output rows reads.
    """
    j = tl.arange(0, COLUMNS)
    stored = (j < K)[:, None] & (c >= 0)[None, :]
    for row in range((K - 1) * D + 1 + 2 * S):
        i = (row - S) // D
        tap = (row >= S) & (row < S + (K - 1) * D + 1) & ((row - S) % D == 0)
        at = i * by_y + j[:, None] * by_x + c[None, :] * by_c
        weights = tl.load(depthwise + at, mask=stored & (c < C)[None, :] & tap, other=0.0)
        tl.store(packed + (row * K + j[:, None]) * WIDTH + c[None, :], weights, mask=stored)


@triton.jit
def load_tap(packed, tap, c, WIDTH):
    """Weights of one tap, a copy for each lane: loaded as the activations are, without an exchange."""
    lanes = tl.zeros((LANES, 1), tl.int32)
    return tl.load(packed + tap * WIDTH + c[None, :] + lanes).to(tl.float32)


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
            upper += load_tap(packed, (row + S) * K + j, c, WIDTH) * value
            lower += load_tap(packed, row * K + j, c, WIDTH) * value
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
    z_pixel, out_pixel = z_units * ALIGN, out_units * ALIGN
    packed += (program * tl.num_programs(1) + group) * ((K - 1) * D + 1 + 2 * S) * K * WIDTH
    for c0 in range(0, C, CHUNK):
        pack(depthwise, packed, c0 + tl.arange(0, CHUNK), C, by_c, by_y, by_x, WIDTH, K, S, D, COLUMNS)
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
            program, programs, group, tl.num_programs(1), sums, tickets,
            gamma, beta, running_mean, running_variance, batches, normal, statistics,
            count, momentum, eps, F, TRAINING,
        )  # fmt: skip


def new_packed(z: Tensor, convolution: Convolution, programs: int, groups: int, width: int) -> Tensor:
    """Room for the packed weights of every program."""
    k, stride, dilation = convolution.kernel[0], convolution.stride[0], convolution.dilation
    return z.new_empty(programs, groups, (k - 1) * dilation + 1 + 2 * stride, k, width)


def separable(
    convolution: Convolution, source: Source, weights: tuple[Tensor, ...], norm: nn.BatchNorm2d, out: Tensor
) -> Normal:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolution`."""
    z, (depthwise, pointwise) = source.z, weights
    (n, c, h, w), (f, oh, ow) = z.shape, out.shape[1:]
    k, stride, dilation = convolution.kernel[0], convolution.stride[0], convolution.dilation
    block_f = block_of(z, f)
    groups = -(-f // block_f)
    align = alignment(c, f, pixel(z), pixel(out))
    tile = tile_of(f"separable {k}", z, block_f, align, c)
    programs = spread(z.device, tile, -(-oh // 2) * -(-n * ow // LANES.value), groups)
    width = -(-c // CHUNK.value) * CHUNK.value
    normal = norms.new_normal(norm)
    scratch = {
        "packed": new_packed(z, convolution, programs, groups, width),
        "sums": new_partials(z.device, programs, 3, f),
    }
    launch(
        separable_kernel, (programs, groups), tile,
        reads=(z, *weights), writes=(out,), scratch=scratch,
        products=out.numel() * c, taps=n * oh * ow * c * k * k,
        z=z, affine=source.affine, depthwise=depthwise, pointwise=pointwise, out=out,
        tickets=tickets(z.device),
        N=n, H=h, W=w, OH=oh, OW=ow,
        pad_y=same_padding(h, k, stride, dilation)[0], pad_x=same_padding(w, k, stride, dilation)[0],
        z_units=pixel(z) // align, out_units=pixel(out) // align,
        by_c=depthwise.stride(0), by_y=depthwise.stride(2), by_x=depthwise.stride(3),
        by_f=pointwise.stride(0), by_k=pointwise.stride(1),
        C=c, F=f, K=k, S=stride, D=dilation, AFFINE=source.affine is not None,
        ALIGN=align, WIDTH=width, COLUMNS=triton.next_power_of_2(k), BLOCK_F=block_f,
        **norms.forward_arguments(norm, normal, out),
    )  # fmt: skip
    return normal
