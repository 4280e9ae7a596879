"""The sum of a block's two sides, each perhaps pooled, forward.

Mathematics:
    out = left + right; a side is keep[n] P(scale z + shift) with P the identity or a 3×3 SAME pool,
    the average over the pixels inside the image.

Shapes and strides:
    out (N, OH, OW, C), and z of a side (N, OH, OW, C) or, with a pool, (N, H, W, C); all NHWC, pixels of
    each a number of units of ALIGN elements apart; affine (2, C) fp32; keep (N, 1, 1, 1), any dtype.

Grid:
    (tiles of PIXELS output pixels, chunks of CHUNK channels, problems).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Pooled
from pnas_fast.kernels.fused.primitives import Sum
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton.device import CHUNK, PIXELS, load_affine, pick, widen
from pnas_fast.kernels.triton.launch import Tile, alignment, launch
from pnas_fast.kernels.triton.problems import each

POOLS = {None: 0, "avg": 1, "max": 2}
AVERAGE = tl.constexpr(POOLS["avg"])
MAXIMUM = tl.constexpr(POOLS["max"])
# Left to itself the compiler may stop at 128 registers and spill.
TILE = Tile(warps=4, registers=255, programs=1)


@triton.jit
def read_side(
    z, affine, keep, image, oy, ox, ok, c, H, W, pad_y, pad_x, z_pixel,
    C: tl.constexpr, POOL: tl.constexpr, S: tl.constexpr, AFFINE: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """A side's value at output pixels, [pixels, channels] fp32."""
    scale, shift = load_affine(affine, c, c < C, C, AFFINE)
    mask = ok[:, None] & (c < C)[None, :]
    if POOL == 0:
        at = (image * H * W + oy * W + ox)[:, None] * z_pixel + c[None, :]
        value = widen(tl.load(z + at, mask=mask, other=0.0)) * scale + shift
    else:
        value = tl.zeros(mask.shape, tl.float32)
        if POOL == MAXIMUM:
            value += float("-inf")
        count = tl.zeros(oy.shape, tl.float32)
        for tap in tl.static_range(9):
            y, x = oy * S - pad_y + tap // 3, ox * S - pad_x + tap % 3
            inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
            at = (image * H * W + y * W + x)[:, None] * z_pixel + c[None, :]
            wanted = mask & inside[:, None]
            source = widen(tl.load(z + at, mask=wanted, other=0.0))
            if POOL == MAXIMUM:
                source = tl.where(wanted, source * scale + shift, float("-inf"))
                value = tl.maximum(value, source, propagate_nan=tl.PropagateNan.ALL)
            else:
                value += source
                count += inside.to(tl.float32)
        if POOL == AVERAGE:
            # Divisions are long: one for all channels.
            value = value * (1.0 / count)[:, None] * scale + shift
        else:
            value = tl.where(mask, value, 0.0)
    if KEEP:
        value *= tl.load(keep + image, mask=ok, other=0.0).to(tl.float32)[:, None]
    return value


@triton.jit(do_not_specialize=["N", "left_units", "right_units", "out_units"])
def add_kernel(
    left_z, left_affine, left_keep, right_z, right_affine, right_keep, out,
    N, left_units, right_units, out_units, C: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    left_H: tl.constexpr, left_W: tl.constexpr, left_PAD_Y: tl.constexpr, left_PAD_X: tl.constexpr,
    left_POOL: tl.constexpr, left_S: tl.constexpr, left_AFFINE: tl.constexpr, left_KEEP: tl.constexpr,
    right_H: tl.constexpr, right_W: tl.constexpr, right_PAD_Y: tl.constexpr, right_PAD_X: tl.constexpr,
    right_POOL: tl.constexpr, right_S: tl.constexpr, right_AFFINE: tl.constexpr, right_KEEP: tl.constexpr,
    ALIGN: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    problem = tl.program_id(2)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    ok = p < N * OH * OW
    image, y, x = p // (OH * OW), p // OW % OH, p % OW
    value = read_side(
        pick(left_z, problem), pick(left_affine, problem), pick(left_keep, problem),
        image, y, x, ok, c, left_H, left_W, left_PAD_Y, left_PAD_X, left_units * ALIGN,
        C, left_POOL, left_S, left_AFFINE, left_KEEP,
    )  # fmt: skip
    if right_z is not None:
        value += read_side(
            pick(right_z, problem), pick(right_affine, problem), pick(right_keep, problem),
            image, y, x, ok, c, right_H, right_W, right_PAD_Y, right_PAD_X, right_units * ALIGN,
            C, right_POOL, right_S, right_AFFINE, right_KEEP,
        )  # fmt: skip
    at = p[:, None] * (out_units * ALIGN) + c[None, :]
    tl.store(pick(out, problem) + at, value, mask=ok[:, None] & (c < C)[None, :])


def side_tensors(sides: Sequence[Pooled]) -> dict[str, tuple[Tensor, ...] | None]:
    """A kernel's view of a side of each problem: its tensors."""
    return {
        "z": each([side.source.z for side in sides]),
        "affine": each([side.source.affine for side in sides]),
        "keep": each([side.keep for side in sides]),
    }


def side_arguments(side: Pooled) -> dict[str, Any]:
    """The numbers of a side; the distance of its pixels is for the launcher."""
    z, stride = side.source.z, side.stride if side.pool else 1
    h, w = z.shape[2:]
    pads = [same_padding(size, 3, stride)[0] if side.pool else 0 for size in (h, w)]
    return {
        "H": h, "W": w, "PAD_Y": pads[0], "PAD_X": pads[1], "POOL": POOLS[side.pool], "S": stride,
        "AFFINE": side.source.affine is not None, "KEEP": side.keep is not None,
    }  # fmt: skip


def add(problems: Sequence[Sum]) -> None:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.adds`."""
    left, right, out = problems[0]
    n, c, oh, ow = out.shape
    lefts, rights = [own.left for own in problems], [own.right for own in problems if own.right is not None]
    sources = [side.source.z for side in (*lefts, *rights)]
    align = alignment(c, pixel(out), *map(pixel, sources))
    tensors: dict[str, tuple[Tensor, ...] | None] = {"out": each([own.out for own in problems])}
    arguments: dict[str, Any] = {}
    absent = Pooled(left.source._replace(affine=None), None, 1, None)
    for name, sides, side in (("left", lefts, left), ("right", rights, right or absent)):
        tensors |= {f"{name}_{key}": value for key, value in side_tensors(sides).items()}
        described = side_arguments(side) | {"units": pixel(side.source.z) // align}
        arguments |= {f"{name}_{key}": value for key, value in described.items()}
    launch(
        add_kernel, (-(-n * oh * ow // PIXELS.value), -(-c // CHUNK.value), len(problems)), TILE,
        reads=sources, writes=[own.out for own in problems], problems=tensors,
        N=n, OH=oh, OW=ow, out_units=pixel(out) // align, C=c, ALIGN=align, **arguments,
    )  # fmt: skip
