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
    (programs, chunks of CHUNK channels, problems). A program walks over tiles of PIECES pieces of ROWS × COLS
    input pixels; of a pool their windows are made again (see `windows`): nothing was saved of the forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from pnas_fast.kernels.fused.primitives import SumBackward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton.add import side_arguments, side_tensors
from pnas_fast.kernels.triton.device import (
    CHUNK,
    finish_affine,
    load_affine,
    nothing,
    pick,
    rows_of,
    widen,
)
from pnas_fast.kernels.triton.launch import alignment, launch
from pnas_fast.kernels.triton.problems import accumulators, added_to, each, kept
from pnas_fast.kernels.triton.tiles import new_partials, spread, tile_of
from pnas_fast.kernels.triton.windows import direction_of, take_row


@triton.jit
def finish_pixel(
    totals, d_scale, d_shift, z, keep, g, into, accumulate, image, y, x, exists, c, scale,
    z_pixel, g_pixel, into_pixel, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    AFFINE: tl.constexpr, KEEP: tl.constexpr, ROW: tl.constexpr, COLUMN: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write dz of one pixel of each piece; d_scale and d_shift with its shares."""
    row, column = y + ROW, x + COLUMN
    ok = exists & (row < H) & (column < W)
    mask = ok[:, None] & (c < C)[None, :]
    p = (image * H * W + row * W + column)[:, None]
    if POOL == 0:
        h = widen(tl.load(g + p * g_pixel + c[None, :], mask=mask, other=0.0))
    else:
        h = tl.where(mask, totals[ROW * COLS + COLUMN], 0.0)
    if KEEP:
        h *= tl.load(keep + image, mask=ok, other=0.0).to(tl.float32)[:, None]
    if AFFINE:
        d_scale += h * widen(tl.load(z + p * z_pixel + c[None, :], mask=mask, other=0.0))
        d_shift += h
    own = into + p * into_pixel + c[None, :]
    share = h * scale + widen(tl.load(own, mask=mask & (accumulate != 0), other=0.0))
    tl.store(own, share, mask=mask)
    return d_scale, d_shift


@triton.jit(do_not_specialize=["N", "accumulate", "z_units", "g_units", "into_units"])
def add_backward_kernel(
    z, affine, keep, g, into, d_affine, accumulate, partial, tickets, N, z_units, g_units, into_units,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr, S: tl.constexpr,
    AFFINE: tl.constexpr, KEEP: tl.constexpr, ALIGN: tl.constexpr,
    PIECES: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    program, programs, chunk = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    problem = tl.program_id(2)
    z, affine, keep, g = pick(z, problem), pick(affine, problem), pick(keep, problem), pick(g, problem)
    into, accumulate = pick(into, problem), (accumulate >> problem) & 1
    z_pixel, g_pixel, into_pixel = z_units * ALIGN, g_units * ALIGN, into_units * ALIGN
    c = chunk * CHUNK + tl.arange(0, CHUNK)
    scale, _ = load_affine(affine, c, c < C, C, AFFINE)
    direction = direction_of(scale, AFFINE)
    d_scale = tl.zeros((PIECES, CHUNK), tl.float32)
    d_shift = tl.zeros((PIECES, CHUNK), tl.float32)
    across: tl.constexpr = (W + COLS - 1) // COLS
    down: tl.constexpr = (H + ROWS - 1) // ROWS
    # Windows end so many rows below the pixel that begins them, and begin as many above it.
    reach: tl.constexpr = 0 if POOL == 0 else 2
    tiles = tl.cdiv(N * down * across, PIECES)
    tl.assume(program < tiles)
    for tile in tl.range(program, tiles, programs, disable_licm=True):
        piece = tile * PIECES + tl.arange(0, PIECES)
        exists = piece < N * down * across
        image, y, x = piece // (down * across), piece // across % down * ROWS, piece % across * COLS
        totals, rows = nothing(ROWS * COLS, PIECES), ()
        for row in tl.static_range(-reach, ROWS + reach):
            if POOL != 0:
                totals, rows = take_row(
                    totals, rows, z, g, image, y, x, exists, c, direction, z_pixel, g_pixel,
                    H, W, OH, OW, PAD_Y, PAD_X, C, POOL, S, row, COLS,
                )  # fmt: skip
            for column in tl.static_range(COLS if row >= reach else 0):
                d_scale, d_shift = finish_pixel(
                    totals, d_scale, d_shift, z, keep, g, into, accumulate, image, y, x, exists, c, scale,
                    z_pixel, g_pixel, into_pixel, H, W, C, POOL, AFFINE, KEEP, row - reach, column, COLS,
                )  # fmt: skip
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, chunk, partial + problem * rows_of(programs) * 2 * C,
            pick(d_affine, problem), accumulate, tickets, problem * tl.num_programs(1), C,
        )  # fmt: skip


def add_backward(problems: Sequence[SumBackward]) -> None:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.adds_backward`."""
    side, g, into = problems[0]
    z = side.source.z
    n, c, h, w = z.shape
    chunks, together = -(-c // CHUNK.value), len(problems)
    align = alignment(c, pixel(z), pixel(g), pixel(into.z))
    tile = tile_of("add_backward", z, CHUNK.value, align)
    # Pixels whose windows share what they read, four channels of a thread; of maxima beside each other,
    # which keep most in registers, two where there are not all of them.
    pieces, rows, columns = 128, 1, 1
    if side.pool:
        pieces = 8 * tile.warps // z.element_size()
        rows, columns = (4, 2) if side.pool == "max" else (2, 4)
    if side.pool == "max" and side.stride == 1 and tile.programs > 1:
        pieces //= 2
    tiles = -(-n * -(-h // rows) * -(-w // columns) // pieces)
    programs = spread(z.device, tile, tiles, chunks * together)
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
        accumulate=added_to(sinks), counters=together * chunks, N=n, OH=g.shape[2], OW=g.shape[3],
        z_units=pixel(z) // align, g_units=pixel(g) // align, into_units=pixel(into.z) // align,
        C=c, ALIGN=align, PIECES=pieces, ROWS=rows, COLS=columns, **side_arguments(side),
    )  # fmt: skip
