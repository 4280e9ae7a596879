"""Batch norm in the prologue and the epilogue of convolutions.

Mathematics:
    forward: mean and variance of z over n = N H W pixels from each program's mean, sum of squared
    differences from it, and count of pixels; scale = gamma / sqrt(variance + eps),
    shift = beta - mean scale; running statistics move.
    backward: with d_scale and d_shift the gradients that reached them,
    d_gamma = (d_scale - mean d_shift) / std, d_beta = d_shift, and z gains offset + slope z where
    slope = -scale d_gamma / (n std), offset = -scale d_shift / n - slope mean. Where g
    has yet to be multiplied by scale, is pending, this is the common factor of g + offset + slope z.
    In evaluation mode slope and offset are 0: the launcher passes 1 / n as 0.

Shapes: normal and statistics (2, F) fp32 hold scale, shift and mean, 1 / std. Partial sums are
(problems, programs and teams, 3, F) fp32: means, squared differences, counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from pnas_fast.kernels.fused import Gradients, Normal, Result
from pnas_fast.kernels.triton.device import (
    TEAM,
    arrive_for_team,
    arrive_in_team,
    last_to_arrive,
    pick,
    rows_of,
    tickets_of,
    widen,
)
from pnas_fast.kernels.triton.problems import each


@triton.jit
def write_row(row, mean, squares, number, f, wanted, F: tl.constexpr):
    """Write a row of sums."""
    tl.store(row + f, mean, mask=wanted)
    tl.store(row + F + f, squares, mask=wanted)
    tl.store(row + 2 * F + f, tl.zeros(f.shape, tl.float32) + number, mask=wanted)


@triton.jit
def count_values(value, ok, number, counted, row, f, wanted, F: tl.constexpr, ZERO: tl.constexpr):
    """Add [pixels, filters] fp32, of which a number are ok, to a program's row: mean, squares, count.

    Pixels that are not ok hold 0 if not ZERO. Squares are of differences from the mean. The row holds what
    was counted before; between tiles it takes no registers. No sum is of squares of the values themselves,
    so far from 0 they keep their digits. Returns the count of all.
    """
    if ZERO:
        value = tl.where(ok[:, None], value, 0.0)
    # Divisions are long: one for all filters.
    mean = tl.sum(value, axis=0) * (1.0 / number)
    difference = value - mean[None, :] * ok.to(tl.float32)[:, None]
    squares = tl.sum(difference * difference, axis=0)
    total = counted + number
    if counted > 0.0:
        # What other threads of the program wrote.
        tl.debug_barrier()
        old_mean = tl.load(row + f, mask=wanted, other=0.0, cache_modifier=".cg")
        old_squares = tl.load(row + F + f, mask=wanted, other=0.0, cache_modifier=".cg")
        step, share = mean - old_mean, number / total
        tl.debug_barrier()
        mean = old_mean + step * share
        squares += old_squares + step * step * (counted * share)
    write_row(row, mean, squares, total, f, wanted, F)
    return total


@triton.jit
def keep_values(value, ok, number, kept, ZERO: tl.constexpr):
    """Add [filters, pixels] fp32, of which a number are ok, to what is kept: count, means, squares.

    As `count_values` does, for a product whose threads have many pixels of few filters: what was counted
    before then takes few registers.
    """
    counted, old_mean, old_squares = kept
    if ZERO:
        value = tl.where(ok[None, :], value, 0.0)
    # Divisions are long: one for all filters.
    mean = tl.sum(value, axis=1) * (1.0 / number)
    difference = value - mean[:, None] * ok.to(tl.float32)[None, :]
    squares = tl.sum(difference * difference, axis=1)
    total = counted + number
    step, share = mean - old_mean, number / total
    return total, old_mean + step * share, old_squares + squares + step * step * (counted * share)


@triton.jit
def merge_rows(sums, count, f, wanted, F: tl.constexpr, ROWS: tl.constexpr):
    """(mean, sum of squared differences from it, count) of all rows together, in a fixed order."""
    number = tl.zeros(f.shape, tl.float32)
    mean = tl.zeros(f.shape, tl.float32)
    squares = tl.zeros(f.shape, tl.float32)
    for begin in range(0, count, ROWS):
        rows = begin + tl.arange(0, ROWS)
        mask = (rows < count)[:, None] & wanted[None, :]
        at = sums + rows[:, None] * 3 * F + f[None, :]
        own_mean = tl.load(at, mask=mask, other=0.0, cache_modifier=".cg")
        own_squares = tl.load(at + F, mask=mask, other=0.0, cache_modifier=".cg")
        own_number = tl.load(at + 2 * F, mask=mask, other=0.0, cache_modifier=".cg")
        more = tl.where(wanted, tl.sum(own_number, axis=0), 1.0)
        more_mean = tl.sum(own_mean * own_number, axis=0) / more
        step = own_mean - more_mean[None, :]
        squares += tl.sum(own_squares + step * step * own_number, axis=0)
        step, share = more_mean - mean, more / (number + more)
        squares += step * step * number * share
        mean += step * share
        number += more
    return mean, squares, number


@triton.jit
def row_of(sums, problem, program, programs, F: tl.constexpr):
    """A program's row of a problem's sums (programs and teams, 3, F)."""
    return sums + (problem * rows_of(programs) + program) * 3 * F


@triton.jit
def finish_norm(
    f,
    wanted,
    program,
    programs,
    group,
    groups,
    problem,
    sums,
    tickets,
    gamma,
    beta,
    running_mean,
    running_variance,
    batches,
    normal,
    statistics,
    count,
    momentum,
    eps,
    F: tl.constexpr,
    TRAINING: tl.constexpr,
):
    """When its row is written: the last program to come makes the norm of channels f of all rows.

    Rows of a team of programs are merged by its last, those of teams by the last of all. A problem has
    `tickets_of` tickets for each group of channels, and one to count groups.
    """
    gamma, beta, batches = pick(gamma, problem), pick(beta, problem), pick(batches, problem)
    running_mean, running_variance = pick(running_mean, problem), pick(running_variance, problem)
    normal, statistics = pick(normal, problem), pick(statistics, problem)
    tickets += problem * (groups * tickets_of(programs) + 1)
    own = tickets + group * tickets_of(programs)
    rows = row_of(sums, problem, 0, programs, F)
    last, first, members = arrive_in_team(own, program, programs)
    if last:
        if TRAINING & (programs > TEAM):
            team = rows + (programs + program // TEAM) * 3 * F
            mean, squares, number = merge_rows(rows + first * 3 * F, members, f, wanted, F, TEAM)
            write_row(team, mean, squares, number, f, wanted, F)
        last, first, members = arrive_for_team(own, programs)
        if last:
            if TRAINING:
                mean, squares, _ = merge_rows(rows + first * 3 * F, members, f, wanted, F, 2 * TEAM)
                variance = squares / count
                share = momentum
                if momentum < 0.0:
                    # Without a momentum, running statistics are plain means over batches.
                    seen = tl.load(batches) + 1
                    share = 1.0 / seen.to(tl.float32)
                    # Counted once, after every group has read the count.
                    if last_to_arrive(tickets, groups * tickets_of(programs), groups):
                        tl.store(batches, seen)
                elif group == 0:
                    tl.store(batches, tl.load(batches) + 1)
                old_mean = tl.load(running_mean + f, mask=wanted)
                old_variance = tl.load(running_variance + f, mask=wanted)
                unbiased = variance * (count / (count - 1.0))
                tl.store(running_mean + f, old_mean + share * (mean - old_mean), mask=wanted)
                tl.store(running_variance + f, old_variance + share * (unbiased - old_variance), mask=wanted)
            else:
                mean = tl.load(running_mean + f, mask=wanted)
                variance = tl.load(running_variance + f, mask=wanted)
            inverse = 1.0 / tl.sqrt_rn(variance + eps)
            scale = tl.load(gamma + f, mask=wanted) * inverse
            tl.store(statistics + f, mean, mask=wanted)
            tl.store(statistics + F + f, inverse, mask=wanted)
            tl.store(normal + f, scale, mask=wanted)
            tl.store(normal + F + f, tl.load(beta + f, mask=wanted) - mean * scale, mask=wanted)


@triton.jit
def norm_gradient(d_normal, statistics, gamma, f, wanted, inverse_count, F: tl.constexpr, pending=0):
    """(offset, slope, d_gamma, d_beta, factor) of channels f: of pending ones divided by the factor, scale.

    That of others is 1.
    """
    mean = tl.load(statistics + f, mask=wanted, other=0.0)
    inverse = tl.load(statistics + F + f, mask=wanted, other=0.0)
    d_scale = tl.load(d_normal + f, mask=wanted, other=0.0)
    d_shift = tl.load(d_normal + F + f, mask=wanted, other=0.0)
    scale = tl.load(gamma + f, mask=wanted, other=0.0) * inverse
    factor = tl.where(pending != 0, scale, 1.0)
    scale = tl.where(pending != 0, 1.0, scale)
    d_gamma = (d_scale - mean * d_shift) * inverse
    slope = -scale * d_gamma * inverse * inverse_count
    offset = -scale * d_shift * inverse_count - slope * mean
    return offset, slope, d_gamma, d_shift, factor


@triton.jit
def load_gradient(g, z, at_g, at_z, mask, offset, slope, NORM: tl.constexpr):
    """fp32 gradient of z: g, and where a norm followed offset + slope z; 0 outside the mask."""
    gradient = widen(tl.load(g + at_g, mask=mask, other=0.0))
    if NORM:
        value = widen(tl.load(z + at_z, mask=mask, other=0.0))
        gradient += tl.where(mask, offset[None, :] + slope[None, :] * value, 0.0)
    return gradient


def new_normal(norm: nn.BatchNorm2d) -> Normal:
    """Memory for the norm of a batch."""
    shape = (2, norm.num_features)
    affine, statistics = (torch.empty(shape, dtype=torch.float32, device=norm.weight.device) for _ in "as")
    return Normal(affine, statistics)


def forward_tensors(
    batch_norms: Sequence[nn.BatchNorm2d | None], normals: Sequence[Normal]
) -> dict[str, tuple[Tensor, ...] | None]:
    """The tensors of `finish_norm` for each problem; None for convolutions without a norm."""
    present = [norm for norm in batch_norms if norm is not None]
    return {
        "gamma": each([norm.weight for norm in present]),
        "beta": each([norm.bias for norm in present]),
        "running_mean": each([norm.running_mean for norm in present]),
        "running_variance": each([norm.running_var for norm in present]),
        "batches": each([norm.num_batches_tracked for norm in present]),
        "normal": each([normal.affine for normal in normals]),
        "statistics": each([normal.statistics for normal in normals]),
    }


def forward_arguments(norm: nn.BatchNorm2d | None, out: Tensor) -> dict[str, Any]:
    """The numbers of `finish_norm`, which problems of a launch share."""
    momentum = -1.0 if norm is None or norm.momentum is None else norm.momentum
    return {
        "count": float(out.shape[0] * out.shape[2] * out.shape[3]),
        "momentum": momentum,
        "eps": 0.0 if norm is None else norm.eps,
        "NORM": norm is not None,
        "TRAINING": norm is not None and norm.training,
    }


def backward_tensors(results: Sequence[Result]) -> dict[str, tuple[Tensor, ...] | None]:
    """The tensors of `load_gradient` for each problem, and room for the norms' own gradients."""
    normed = [(result, result.normal) for result in results if result.normal is not None]
    return {
        "result": each([result.z for result in results]),
        "g": each([result.g for result in results]),
        "statistics": each([normal.statistics for _, normal in normed]),
        "d_normal": each(
            [
                torch.zeros_like(normal.affine) if result.d_affine is None else result.d_affine
                for result, normal in normed
            ]
        ),
        "gamma": each([result.gamma for result, _ in normed]),
        "d_norm": each([torch.empty_like(normal.affine) for _, normal in normed]),
    }


def pending(results: Sequence[Result]) -> int:
    """A bit for each problem whose g has yet to be multiplied by scale, the first problem's the lowest."""
    return sum(result.pending << place for place, result in enumerate(results))


def backward_arguments(result: Result) -> dict[str, Any]:
    """The numbers of `load_gradient`, which problems of a launch share."""
    n, f, h, w = result.z.shape
    return {
        "inverse_count": 1.0 / (n * h * w) if result.training else 0.0,
        "NORM": result.normal is not None,
        "F": f,
    }


def gradients_of(
    weights: Sequence[tuple[Tensor, ...]], d_norms: tuple[Tensor, ...] | None
) -> list[Gradients]:
    """Gradients of each problem from the buffers a backward kernel wrote."""
    if d_norms is None:
        return [Gradients(own, None, None) for own in weights]
    return [Gradients(own, *d_norm) for own, d_norm in zip(weights, d_norms, strict=True)]
