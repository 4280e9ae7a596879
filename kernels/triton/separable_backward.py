"""One half of a separable convolution, backward.

Mathematics, with d, r and z' as in the forward and dz' = g + offset + slope z' (see `norm`):
    1. dd = dz' pointwise and d_pointwise = sum over pixels of dz'^T d, d computed again;
    2. dr[y, x] = sum over i, j of depthwise[i, j] dd[(y + pad - i D) / s, (x + pad - j D) / s] where
       these are whole, dz = scale dr where r > 0, d_scale = sum of z dr and d_shift = sum of dr there;
    3. d_depthwise[i, j] = sum over pixels of dd r[y s - pad + i D, x s - pad + j D].

Shapes and strides:
    as in the forward; g and result (N, OH, OW, F) and into (N, H, W, C), NHWC, pixels of each a number
    of units of ALIGN elements apart; dd (problems, N, OH, OW, C) in z's dtype, scratch; d_affine and
    d_norm (2, C) and (2, F) fp32; weight gradients with the strides of the weights. kept_norm (pieces
    of work of 1 of all problems, 2, BLOCK_F) fp32 holds offset and slope between tiles. Partial
    results are fp32, a row for each program of a group and each of their teams: pointwise (problems, rows,
    F, C), affine (problems, rows, 2, C), depthwise (problems, rows, K, K, C).

Grid:
    one launch for all three and all problems. A program takes the next piece of work from a counter:
    first come those of 1, then those of 2 and 3, which wait until all of 1 are done. Work is handed out
    in order and 1 waits for nothing, so whatever a program waits for is already running: the wait ends on
    any card, however few programs it holds at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import Convolution, Gradients
from pnas_fast.kernels.fused.primitives import Backward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.device import CHUNK, last_to_arrive, pick, rows_of, tickets_of, wait_for
from pnas_fast.kernels.triton.launch import alignment, launch
from pnas_fast.kernels.triton.problems import accumulators, added_to, each, kept, new_like
from pnas_fast.kernels.triton.separable import arranged, strips_of
from pnas_fast.kernels.triton.separable_parts import depthwise_part, pointwise_part, source_part
from pnas_fast.kernels.triton.strips import pairs_of_rows
from pnas_fast.kernels.triton.tiles import block_of, new_partials, spread, teams_of, tile_of

NEXT, FINISHED, FIRST = (tl.constexpr(ticket) for ticket in range(3))
"""Tickets: the counter of work, finished programs, and the first of the problems' own."""


@triton.jit(
    do_not_specialize=["N", "accumulate", "pending"]
    + ["z_units", "g_units", "result_units", "into_units"]
    + ["pointwise_programs", "source_programs", "depthwise_programs"]
)
def separable_backward_kernel(
    z, affine, depthwise, pointwise, result, g, statistics, d_normal, gamma, d_norm,
    dd, into, d_affine, accumulate, d_depthwise, d_pointwise,
    kept_norm, pointwise_partial, source_partial, depthwise_partial, tickets, inverse_count,
    pending, N, z_units, g_units, result_units, into_units,
    by_c, by_y, by_x, by_f, by_k, pointwise_programs, source_programs, depthwise_programs,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, AFFINE: tl.constexpr, NORM: tl.constexpr,
    ARRANGED: tl.constexpr, ALIGN: tl.constexpr, BLOCK_F: tl.constexpr, PROBLEMS: tl.constexpr,
    LANES: tl.constexpr, COLS: tl.constexpr, WIDE_LANES: tl.constexpr, WIDE_COLS: tl.constexpr,
    WIDE_CHUNK: tl.constexpr, TAP_ROWS: tl.constexpr,
):  # fmt: skip
    """See the top of the file."""
    chunks: tl.constexpr = (C + CHUNK - 1) // CHUNK
    wide_chunks: tl.constexpr = (C + WIDE_CHUNK - 1) // WIDE_CHUNK
    blocks: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    source_ticket = 1 + chunks * blocks * tickets_of(pointwise_programs)
    depthwise_ticket = source_ticket + wide_chunks
    own_tickets = depthwise_ticket + wide_chunks * tl.cdiv(K, TAP_ROWS) * tickets_of(depthwise_programs)
    z_pixel = z_units * ALIGN
    ticket = tl.atomic_add(tickets + NEXT, 1, sem="relaxed", scope="gpu")
    problem, work = ticket % PROBLEMS, ticket // PROBLEMS
    before_source = pointwise_programs * chunks * blocks
    before_depthwise = before_source + source_programs * wide_chunks
    ready = FIRST + problem * own_tickets
    z, affine, depthwise = pick(z, problem), pick(affine, problem), pick(depthwise, problem)
    dd += problem * N * OH * OW * C
    if work < before_source:
        pointwise_part(
            work, pointwise_programs, z, affine, depthwise, pick(pointwise, problem), pick(result, problem),
            pick(g, problem), pick(statistics, problem), pick(d_normal, problem), pick(gamma, problem),
            pick(d_norm, problem), dd, pick(d_pointwise, problem),
            kept_norm + problem * before_source * 2 * BLOCK_F,
            pointwise_partial + problem * rows_of(pointwise_programs) * F * C, tickets, ready,
            inverse_count, (pending >> problem) & 1, N, z_pixel, g_units * ALIGN, result_units * ALIGN,
            by_c, by_y, by_x, by_f, by_k, H, W, OH, OW,
            C, F, K, S, D, PAD_Y, PAD_X, AFFINE, NORM, ARRANGED, BLOCK_F, LANES, COLS,
        )  # fmt: skip
    else:
        wait_for(tickets, ready, before_source)
        if work >= before_depthwise:
            depthwise_part(
                work - before_depthwise, depthwise_programs, z, affine, dd, pick(d_depthwise, problem),
                depthwise_partial + problem * rows_of(depthwise_programs) * K * K * C,
                tickets, ready + depthwise_ticket, N, z_pixel, by_c, by_y, by_x, H, W, OH, OW,
                C, K, S, D, PAD_Y, PAD_X, AFFINE, WIDE_LANES, WIDE_COLS, WIDE_CHUNK, TAP_ROWS,
            )  # fmt: skip
        elif into is not None:
            source_part(
                work - before_source, source_programs, z, affine, depthwise, dd, pick(into, problem),
                pick(d_affine, problem), (accumulate >> problem) & 1,
                source_partial + problem * rows_of(source_programs) * 2 * C, tickets, ready + source_ticket,
                N, z_pixel, into_units * ALIGN, by_c, by_y, by_x, H, W, OH, OW,
                C, K, S, D, PAD_Y, PAD_X, AFFINE, ARRANGED, WIDE_LANES, WIDE_COLS, WIDE_CHUNK,
            )  # fmt: skip
    if last_to_arrive(tickets, FINISHED, tl.num_programs(0)):
        tl.store(tickets + NEXT, 0)
        for other in tl.static_range(PROBLEMS):
            tl.store(tickets + FIRST + other * own_tickets, 0)


def separable_backward(convolution: Convolution, problems: Sequence[Backward]) -> list[Gradients]:
    """Launch it. See `pnas_fast.kernels.fused.Primitives.convolutions_backward`."""
    (z, affine), (depthwise, pointwise), result, into = problems[0]
    (n, c, h, w), (f, oh, ow) = z.shape, result.z.shape[1:]
    k, stride, dilation = convolution.kernel[0], convolution.stride[0], convolution.dilation
    block_f, chunks, together = block_of(z, f, widest_fp32=16), -(-c // CHUNK.value), len(problems)
    gradient = None if into is None else into.z
    align = alignment(c, f, *(pixel(x) for x in (z, result.z, result.g, gradient) if x is not None))
    name, blocks = f"separable_backward {k}{' dilated' if dilation > 1 else ''}", -(-f // block_f)
    if affine is None and block_f == 32 and (k == 5 or dilation > 1):
        name += " of a sum"  # masks for channels and lanes that do not exist take registers
    tile = tile_of(name, z, block_f, align)
    lanes, columns = strips_of(block_f, 1, tile.warps)
    # Rows of taps share rows of inputs, as far as registers hold totals beside two rows of gradients.
    # A stride leaves little to share.
    tap_rows = 1 if stride > 1 else 3 if k == 3 else 2
    # Parts 2 and 3 multiply no matrices: as many pixels as threads load well, and half a chunk of channels
    # where the last chunk has no more. Three rows of taps leave no registers for channels that do not exist.
    more = c % CHUNK.value
    halves = more == CHUNK.value // 2 or (tap_rows < 3 and 0 < more < CHUNK.value // 2)
    wide_chunk = CHUNK.value // 2 if halves else CHUNK.value
    wide_lanes, wide_columns, wide_chunks = 4 * tile.warps * CHUNK.value // wide_chunk, 4, -(-c // wide_chunk)

    def tiles(width: int, lanes: int, columns: int) -> int:
        """Of a row in all images."""
        return -(-n * -(-width // columns) // lanes)

    rows, out_rows = (pairs_of_rows(height, stride, dilation) for height in (h, oh))
    taps = wide_chunks * -(-k // tap_rows)
    groups = (chunks * blocks * together, wide_chunks * together, taps * together)
    programs = (
        spread(z.device, tile, out_rows * tiles(ow, lanes, columns), groups[0]),
        0 if into is None else spread(z.device, tile, rows * tiles(w, wide_lanes, wide_columns), groups[1]),
        spread(z.device, tile, out_rows * tiles(ow, wide_lanes, wide_columns), groups[2]),
    )
    work = [number * held for number, held in zip(groups, programs, strict=True)]
    # As the kernel deals them out: `FIRST`, and of each problem those of its three parts.
    weight_sums = (groups[number] * (1 + teams_of(programs[number])) for number in (0, 2))
    counters = FIRST.value + together + groups[1] + sum(weight_sums)
    scratch = {
        "dd": z.new_empty(together, n, oh, ow, c),
        "kept_norm": z.new_empty(work[0], 2, block_f, dtype=torch.float32),
        "pointwise_partial": new_partials(z.device, together, programs[0], f, c),
        "source_partial": new_partials(z.device, together, programs[1], 2, c),
        "depthwise_partial": new_partials(z.device, together, programs[2], k, k, c),
    }
    d_weights = [new_like(problem.weights) for problem in problems]
    sinks = [problem.into for problem in problems]
    tensors = norms.backward_tensors([problem.result for problem in problems])
    launch(
        separable_backward_kernel, (sum(work),), tile,
        # Part 1, then 2 and 3, which read dd and z at the same time.
        reads=[
            *(x for own in problems for x in (own.source.z, own.result.z, own.result.g, *own.weights)),
            *(own.source.z for own in problems), *kept(sinks),
        ],
        writes=[*(x for own in d_weights for x in own), *(sink.z for sink in sinks if sink is not None)],
        scratch=scratch, products=2 * together * result.z.numel() * c,
        taps=(3 if into is not None else 2) * together * n * oh * ow * c * k * k,
        problems={
            "z": each([own.source.z for own in problems]),
            "affine": each([own.source.affine for own in problems]),
            "depthwise": each([own.weights[0] for own in problems]),
            "pointwise": each([own.weights[1] for own in problems]),
            "d_depthwise": each([own[0] for own in d_weights]),
            "d_pointwise": each([own[1] for own in d_weights]),
            **accumulators(sinks), **tensors,
        },
        accumulate=added_to(sinks), pending=norms.pending([own.result for own in problems]),
        counters=counters,
        N=n, H=h, W=w, OH=oh, OW=ow,
        PAD_Y=same_padding(h, k, stride, dilation)[0], PAD_X=same_padding(w, k, stride, dilation)[0],
        z_units=pixel(z) // align, g_units=pixel(result.g) // align, result_units=pixel(result.z) // align,
        into_units=0 if gradient is None else pixel(gradient) // align,
        by_c=depthwise.stride(0), by_y=depthwise.stride(2), by_x=depthwise.stride(3),
        by_f=pointwise.stride(0), by_k=pointwise.stride(1),
        pointwise_programs=programs[0], source_programs=programs[1], depthwise_programs=programs[2],
        C=c, K=k, S=stride, D=dilation, AFFINE=affine is not None,
        ARRANGED=arranged(depthwise, pointwise), ALIGN=align, BLOCK_F=block_f, PROBLEMS=together,
        LANES=lanes, COLS=columns, WIDE_LANES=wide_lanes, WIDE_COLS=wide_columns, WIDE_CHUNK=wide_chunk,
        TAP_ROWS=tap_rows,
        **norms.backward_arguments(result),
    )  # fmt: skip
    return norms.gradients_of(d_weights, tensors["d_norm"])
