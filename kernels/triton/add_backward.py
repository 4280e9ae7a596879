"""The gradients of the sides of a block's sum.

Mathematics, of each side:
    h[n, y, x] = keep[n] times the sum of g over the output pixels that took their value here: the same
    pixel without a pool; with an average the pixels whose window holds (y, x), each divided by the
    window's pixels inside the image; with a maximum those whose window's first greatest value is this.
    dz = scale h, d_scale = sum of z h, d_shift = sum of h. Of a side whose source is handed g itself, dz is
    not written.

Shapes and strides:
    z and into (N, H, W, C), g (N, OH, OW, C), NHWC, pixels of each a number of units of ALIGN elements
    apart; affine and d_affine (2, C) fp32; keep (N, 1, 1, 1), any dtype; partial (problems, programs
    and teams, 2, C) fp32.

Grid:
    one launch for sides of one or two kinds, each of one or more problems: a program for each of a kind's
    problems, chunks of CHUNK channels and its programs, those of the first kind before those of the second.
    A program walks over tiles of PIECES pieces of ROWS × COLS input pixels; of a pool their windows are made
    again (see `windows`): nothing was saved of the forward.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.fused.lazy import MOST
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
from pnas_fast.kernels.triton.launch import Tile, alignment, launch
from pnas_fast.kernels.triton.problems import added_to, alike, each, kept
from pnas_fast.kernels.triton.tiles import new_partials, spread, tile_of
from pnas_fast.kernels.triton.windows import direction_of, take_row


@triton.jit
def finish_pixel(
    totals, d_scale, d_shift, z, keep, g, into, accumulate, written, image, y, x, exists, c, scale,
    z_pixel, g_pixel, into_pixel, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    AFFINE: tl.constexpr, KEEP: tl.constexpr, ROW: tl.constexpr, COLUMN: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write dz of one pixel of each piece, if written; d_scale and d_shift with its shares."""
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
    if into is not None:
        own = into + p * into_pixel + c[None, :]
        share = h * scale + widen(tl.load(own, mask=mask & (accumulate != 0), other=0.0))
        tl.store(own, share, mask=mask & (written != 0))
    return d_scale, d_shift


@triton.jit
def side_part(
    work, programs, z, affine, keep, g, into, d_affine, accumulate, written, partial, tickets,
    N, z_pixel, g_pixel, into_pixel, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr, S: tl.constexpr,
    AFFINE: tl.constexpr, KEEP: tl.constexpr, PIECES: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """A piece of work of one kind of sides: they count programs, then chunks, then problems."""
    chunks: tl.constexpr = (C + CHUNK - 1) // CHUNK
    program, chunk, problem = work % programs, work // programs % chunks, work // programs // chunks
    z, affine, keep, g = pick(z, problem), pick(affine, problem), pick(keep, problem), pick(g, problem)
    own, accumulate, written = None, (accumulate >> problem) & 1, (written >> problem) & 1
    if into is not None:
        own = pick(into, problem)
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
                    totals, d_scale, d_shift, z, keep, g, own, accumulate, written, image, y, x, exists, c,
                    scale, z_pixel, g_pixel, into_pixel, H, W, C, POOL, AFFINE, KEEP,
                    row - reach, column, COLS,
                )  # fmt: skip
    if AFFINE:
        finish_affine(
            d_scale, d_shift, program, programs, chunk, partial + problem * rows_of(programs) * 2 * C,
            pick(d_affine, problem), accumulate, tickets, problem * chunks, C,
        )  # fmt: skip


@triton.jit(
    do_not_specialize=["N"]
    + [
        f"{kind}_{name}"
        for kind in ("first", "second")
        for name in ("programs", "work", "accumulate", "written", "z_units", "g_units", "into_units")
    ]
)
def add_backward_kernel(
    first_z, first_affine, first_keep, first_g, first_into, first_d_affine, first_accumulate, first_written,
    second_z, second_affine, second_keep, second_g, second_into, second_d_affine, second_accumulate,
    second_written, first_partial, second_partial, tickets, N,
    first_programs, first_work, first_z_units, first_g_units, first_into_units,
    second_programs, second_work, second_z_units, second_g_units, second_into_units,
    C: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    first_H: tl.constexpr, first_W: tl.constexpr, first_PAD_Y: tl.constexpr, first_PAD_X: tl.constexpr,
    first_POOL: tl.constexpr, first_S: tl.constexpr, first_AFFINE: tl.constexpr, first_KEEP: tl.constexpr,
    first_PIECES: tl.constexpr, first_ROWS: tl.constexpr, first_COLS: tl.constexpr,
    second_H: tl.constexpr, second_W: tl.constexpr, second_PAD_Y: tl.constexpr, second_PAD_X: tl.constexpr,
    second_POOL: tl.constexpr, second_S: tl.constexpr, second_AFFINE: tl.constexpr, second_KEEP: tl.constexpr,
    second_PIECES: tl.constexpr, second_ROWS: tl.constexpr, second_COLS: tl.constexpr,
    ALIGN: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    work = tl.program_id(0)
    if work < first_work:
        side_part(
            work, first_programs, first_z, first_affine, first_keep, first_g, first_into, first_d_affine,
            first_accumulate, first_written, first_partial, tickets, N,
            first_z_units * ALIGN, first_g_units * ALIGN, first_into_units * ALIGN,
            first_H, first_W, OH, OW, first_PAD_Y, first_PAD_X, C, first_POOL, first_S,
            first_AFFINE, first_KEEP, first_PIECES, first_ROWS, first_COLS,
        )  # fmt: skip
    elif second_z is not None:
        side_part(
            work - first_work, second_programs, second_z, second_affine, second_keep, second_g, second_into,
            second_d_affine, second_accumulate, second_written, second_partial,
            tickets + first_work // first_programs, N,
            second_z_units * ALIGN, second_g_units * ALIGN, second_into_units * ALIGN,
            second_H, second_W, OH, OW, second_PAD_Y, second_PAD_X, C, second_POOL, second_S,
            second_AFFINE, second_KEEP, second_PIECES, second_ROWS, second_COLS,
        )  # fmt: skip


def launches(problems: Sequence[SumBackward]) -> list[list[list[SumBackward]]]:
    """Kinds of sides for a launch each: two at most, and no two sides that add to the same gradient."""
    found: list[list[list[SumBackward]]] = []
    waiting = list(problems)
    while waiting:
        chosen: list[SumBackward] = []
        later: list[SumBackward] = []
        taken = set()
        for problem in waiting:
            place = None if problem.into is None else problem.into.z.data_ptr()
            (later if place in taken else chosen).append(problem)
            taken |= {place} - {None}
        # What takes longest begins first.
        kinds = [
            kind[first : first + MOST]
            for alike_sides in sorted(alike(chosen, _likeness), key=lambda kind: kind[0].side.pool is None)
            for kind in _of_one_distance(alike_sides)
            for first in range(0, len(kind), MOST)
        ]
        found += [kinds[first : first + 2] for first in range(0, len(kinds), 2)]
        waiting = later
    return found


def _likeness(problem: SumBackward) -> Hashable:
    (z, affine), pool, stride, keep = problem.side
    absent = (affine is None, None if keep is None else keep.dtype)
    return pool, stride, z.shape, pixel(z), pixel(problem.g), *absent


def _of_one_distance(problems: list[SumBackward]) -> list[list[SumBackward]]:
    """Those together whose gradients' pixels are as far apart; what writes none goes with any."""
    distances = [pixel(own.into.z) for own in problems if own.into is not None] or [0]
    return alike(problems, lambda own: distances[0] if own.into is None else pixel(own.into.z))


class _Kind(NamedTuple):
    """A kernel's view of sides of one kind: tensors of each problem, room for partial sums, numbers."""

    tensors: dict[str, tuple[Tensor, ...] | None]
    partial: Tensor | None
    numbers: dict[str, Any]

    @staticmethod
    def nothing(like: _Kind) -> _Kind:
        """Of no sides, with the names of others."""
        return _Kind(dict.fromkeys(like.tensors), None, dict.fromkeys(like.numbers, 0))


def _kind(problems: Sequence[SumBackward], tile: Tile, align: int) -> _Kind:
    side, g, _, _ = problems[0]
    z = side.source.z
    n, c, h, w = z.shape
    groups = -(-c // CHUNK.value) * len(problems)
    # Pixels whose windows share what they read, four channels of a thread; two of maxima beside each other,
    # which keep most in registers.
    pieces, rows, columns = 128, 1, 1
    if side.pool:
        pieces = 8 * tile.warps // z.element_size()
        rows, columns = (4, 2) if side.pool == "max" else (2, 4)
    if side.pool == "max" and side.stride == 1:
        pieces //= 2
    tiles = -(-n * -(-h // rows) * -(-w // columns) // pieces)
    programs = spread(z.device, tile, tiles, groups)
    sinks = [own.into for own in problems]
    # A pointer for each, if there is one: where nothing is written, another's.
    into = next((sink.z for sink in sinks if sink is not None), None)
    tensors = {
        "g": each([own.g for own in problems]),
        **side_tensors([own.side for own in problems]),
        "into": each([into if sink is None else sink.z for sink in sinks]),
        "d_affine": each([own.d_affine if own.into is None else own.into.affine for own in problems]),
    }
    numbers = {
        "programs": programs, "work": programs * groups, "accumulate": added_to(sinks),
        "written": sum((sink is not None) << place for place, sink in enumerate(sinks)),
        "z_units": pixel(z) // align, "g_units": pixel(g) // align,
        "into_units": 0 if into is None else pixel(into) // align,
        "PIECES": pieces, "ROWS": rows, "COLS": columns, **side_arguments(side),
    }  # fmt: skip
    return _Kind(tensors, new_partials(z.device, len(problems), programs, 2, c), numbers)


def _tile_name(problems: Sequence[SumBackward]) -> str:
    """What the tile is known by: gradients of averages take registers that a scale and shift need."""
    averages = any(own.side.pool == "avg" and own.side.source.affine is not None for own in problems)
    return "add_backward of averages" if averages else "add_backward"


def add_backward(kinds: Sequence[Sequence[SumBackward]]) -> None:
    """Launch it for one of `launches`. See `pnas_fast.kernels.fused.Primitives.adds_backward`."""
    problems = [problem for kind in kinds for problem in kind]
    n, c, oh, ow = problems[0].g.shape
    sinks = [own.into for own in problems]
    strides = [pixel(x) for own in problems for x in (own.side.source.z, own.g)]
    align = alignment(c, *strides, *(pixel(sink.z) for sink in sinks if sink is not None))
    tile = tile_of(_tile_name(problems), problems[0].g, CHUNK.value, align)
    first = _kind(kinds[0], tile, align)
    second = _kind(kinds[1], tile, align) if len(kinds) > 1 else _Kind.nothing(first)
    named = (("first", first), ("second", second))
    read = [own for own in problems if own.side.pool == "max" or own.side.source.affine is not None]
    tensors = {f"{name}_{key}": value for name, kind in named for key, value in kind.tensors.items()}
    numbers = {f"{name}_{key}": value for name, kind in named for key, value in kind.numbers.items()}
    scratch = {f"{name}_partial": kind.partial for name, kind in named if kind.partial is not None}
    launch(
        add_backward_kernel, (first.numbers["work"] + second.numbers["work"],), tile,
        reads=[*(own.side.source.z for own in read), *(own.g for own in problems), *kept(sinks)],
        writes=[own.d_affine if own.into is None else own.into.z for own in problems],
        scratch=scratch, problems=tensors, counters=len(problems) * -(-c // CHUNK.value),
        N=n, OH=oh, OW=ow, C=c, ALIGN=align,
        **(numbers | dict.fromkeys({"second_partial"} - scratch.keys())),
    )  # fmt: skip
