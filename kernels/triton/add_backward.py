"""The gradient of one side of a block's sum.

Mathematics:
    h[n, y, x] = keep[n] times the sum of g over the output pixels that took their value here: the same
    pixel without a pool; with an average the pixels whose window holds (y, x), each divided by the
    window's pixels inside the image; with a maximum those whose window's first greatest value is this.
    dz = scale h, d_scale = sum of z h, d_shift = sum of h.

Shapes and strides:
    z and into (N, H, W, C), g (N, OH, OW, C), NHWC, pixels of each a number of units of ALIGN elements
    apart; affine and d_affine (2, C) fp32; keep (N, 1, 1, 1), any dtype; partial (problems, programs
    and teams, 2, C) fp32.

Grid:
    (programs, chunks of CHUNK channels, problems). A program walks over tiles of PIXELS input pixels. Of
    a maximum it compares each pixel with its 24 neighbours once, keeping a bit for each of the 9 windows
    that hold it: no window is searched, and nothing was saved of the forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from pnas_fast.kernels.fused.problems import SumBackward
from pnas_fast.kernels.triton.add import AVERAGE, MAXIMUM, side_arguments, side_tensors
from pnas_fast.kernels.triton.device import CHUNK, finish_affine, load_affine, pick, rows_of, widen
from pnas_fast.kernels.triton.launch import alignment, launch, pixel, tickets
from pnas_fast.kernels.triton.problems import accumulators, added_to, each, kept
from pnas_fast.kernels.triton.tiles import new_partials, spread, tile_of


@triton.jit
def windows_won(z, image, y, x, mask, value, c, scale, shift, H, W, z_pixel):
    """Of the windows that hold each pixel, a bit for each it is the first greatest of: 3 i + j where it
    is the window's pixel (i, j).
    """
    won = tl.full(value.shape, (1 << 9) - 1, tl.int32)
    for di in tl.static_range(-2, 3):
        for dj in tl.static_range(-2, 3):
            if di != 0 or dj != 0:
                both = 0
                for i in tl.static_range(3):
                    for j in tl.static_range(3):
                        if i + di >= 0 and i + di < 3 and j + dj >= 0 and j + dj < 3:
                            both += 1 << (3 * i + j)
                inside = (y + di >= 0) & (y + di < H) & (x + dj >= 0) & (x + dj < W)
                wanted = mask & inside[:, None]
                at = (image * H * W + (y + di) * W + x + dj)[:, None] * z_pixel + c[None, :]
                other = widen(tl.load(z + at, mask=wanted, other=0.0)) * scale + shift
                if di < 0 or (di == 0 and dj < 0):
                    beaten = other >= value
                else:
                    beaten = other > value
                won = tl.where(wanted & beaten, won & ~both, won)
    return won


@triton.jit
def gather(
    g, won, image, y, x, mask, c, H, W, OH, OW, pad_y, pad_x, g_pixel, POOL: tl.constexpr, S: tl.constexpr
):  # fmt: skip
    """The sum of g over the windows that give each input pixel a share, [pixels, channels] fp32."""
    total = tl.zeros(mask.shape, tl.float32)
    for tap in tl.static_range(9):
        top, left = y - tap // 3, x - tap % 3
        oy, ox = (top + pad_y) // S, (left + pad_x) // S
        whole = (
            ((top + pad_y) % S == 0) & ((left + pad_x) % S == 0) & (top + pad_y >= 0) & (left + pad_x >= 0)
        )
        wanted = mask & (whole & (oy < OH) & (ox < OW))[:, None]
        if POOL == MAXIMUM:
            wanted = wanted & ((won & (1 << tap)) != 0)
        at = (image * OH * OW + oy * OW + ox)[:, None] * g_pixel + c[None, :]
        share = widen(tl.load(g + at, mask=wanted, other=0.0))
        if POOL == AVERAGE:
            rows = tl.minimum(top + 3, H) - tl.maximum(top, 0)
            columns = tl.minimum(left + 3, W) - tl.maximum(left, 0)
            # A window that does not exist may have no pixels; its share is 0.
            share = share / tl.maximum(rows * columns, 1).to(tl.float32)[:, None]
        total += share
    return total


@triton.jit(do_not_specialize=["N", "accumulate", "z_units", "g_units", "into_units"])
def add_backward_kernel(
    z, affine, keep, g, into, d_affine, accumulate, partial, tickets, N, z_units, g_units, into_units,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr, S: tl.constexpr,
    AFFINE: tl.constexpr, KEEP: tl.constexpr, ALIGN: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, chunk = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    problem = tl.program_id(2)
    z, affine, keep, g = pick(z, problem), pick(affine, problem), pick(keep, problem), pick(g, problem)
    into, accumulate = pick(into, problem), (accumulate >> problem) & 1
    z_pixel, g_pixel, into_pixel = z_units * ALIGN, g_units * ALIGN, into_units * ALIGN
    c = chunk * CHUNK + tl.arange(0, CHUNK)
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    d_scale = tl.zeros((PIXELS, CHUNK), tl.float32)
    d_shift = tl.zeros((PIXELS, CHUNK), tl.float32)
    for tile in range(program, tl.cdiv(N * H * W, PIXELS), programs):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        ok = p < N * H * W
        image, y, x = p // (H * W), p // W % H, p % W
        mask = ok[:, None] & (c < C)[None, :]
        value = tl.zeros((PIXELS, CHUNK), tl.float32)
        if AFFINE or POOL == MAXIMUM:
            value += widen(tl.load(z + p[:, None] * z_pixel + c[None, :], mask=mask, other=0.0))
        if POOL == 0:
            h = widen(tl.load(g + p[:, None] * g_pixel + c[None, :], mask=mask, other=0.0))
        else:
            won = tl.full((PIXELS, CHUNK), 0, tl.int32)
            if POOL == MAXIMUM:
                won = windows_won(z, image, y, x, mask, value * scale + shift, c, scale, shift, H, W, z_pixel)
            h = gather(g, won, image, y, x, mask, c, H, W, OH, OW, PAD_Y, PAD_X, g_pixel, POOL, S)
        if KEEP:
            h *= tl.load(keep + image, mask=ok, other=0.0).to(tl.float32)[:, None]
        if AFFINE:
            d_scale += h * value
            d_shift += h
        own = into + p[:, None] * into_pixel + c[None, :]
        share = h * scale + widen(tl.load(own, mask=mask & (accumulate != 0), other=0.0))
        tl.store(own, share, mask=mask)
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, chunk, partial + problem * rows_of(programs) * 2 * C,
            pick(d_affine, problem), accumulate, tickets, problem * tl.num_programs(1), C,
        )  # fmt: skip


def add_backward(problems: Sequence[SumBackward]) -> None:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.add_backward`."""
    side, g, into = problems[0]
    z = side.source.z
    n, c, h, w = z.shape
    chunks, together = -(-c // CHUNK.value), len(problems)
    align = alignment(c, pixel(z), pixel(g), pixel(into.z))
    tile = tile_of("add_backward", z, CHUNK.value, align)
    # A pool's neighbours take registers, so fewer pixels fit.
    pixels = 64 if side.pool else 128
    programs = spread(z.device, tile, -(-n * h * w // pixels), chunks * together)
    sinks = [own.into for own in problems]
    sources = [own.side.source.z for own in problems]
    launch(
        add_backward_kernel, (programs, chunks, together), tile,
        reads=[
            *(sources if side.pool == "max" or side.source.affine is not None else ()),
            *(own.g for own in problems), *kept(sinks),
        ],
        writes=[sink.z for sink in sinks],
        scratch={"partial": new_partials(z.device, together, programs, 2, c)},
        problems={
            "g": each([own.g for own in problems]),
            **side_tensors([own.side for own in problems]), **accumulators(sinks),
        },
        accumulate=added_to(sinks), tickets=tickets(z.device), N=n, OH=g.shape[2], OW=g.shape[3],
        z_units=pixel(z) // align, g_units=pixel(g) // align, into_units=pixel(into.z) // align,
        C=c, ALIGN=align, PIXELS=pixels, **side_arguments(side),
    )  # fmt: skip
