"""Batch norm in the prologue and the epilogue of convolutions.

Mathematics:
    forward: mean and variance of z over n = N H W pixels from each program's count of pixels, sum, and
    sum of squared differences from their mean; scale = gamma / sqrt(variance + eps),
    shift = beta - mean scale; running statistics move.
    backward: with d_scale and d_shift the gradients that reached them,
    d_gamma = (d_scale - mean d_shift) / std, d_beta = d_shift, and z gains offset + slope z where
    slope = -scale d_gamma / (n std), offset = -scale d_shift / n - slope mean.
    In evaluation mode slope and offset are 0: the launcher passes 1 / n as 0.

Shapes: normal and statistics (2, F) fp32 hold scale, shift and mean, 1 / std. Partial sums are
(programs, 2, F) fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from pnas_fast.kernels.backend import BackendError
from pnas_fast.kernels.fused import Gradients, Normal, Result
from pnas_fast.kernels.triton.device import last_to_arrive, sum_partials


@triton.jit
def count_values(value, ok, count, pivot, ones, squares):
    """Add [pixels, filters] fp32, zero where not ok, to (count, pivot, sum, sum of squares) of a program.

    Sums are of differences from the mean of the first values, so that they keep their digits far from 0.
    """
    number = tl.sum(ok.to(tl.float32), axis=0)
    if count == 0.0:
        pivot = tl.sum(value, axis=0) / number
    difference = tl.where(ok[:, None], value - pivot[None, :], 0.0)
    return (
        count + number,
        pivot,
        ones + tl.sum(difference, axis=0),
        squares + tl.sum(difference * difference, axis=0),
    )


@triton.jit
def sum_statistics(sums, programs, f, wanted, total, F: tl.constexpr):
    """(mean, variance) of the batch from what each program wrote, in a fixed order."""
    mean = sum_partials(sums, programs, 3 * F, f, wanted) / total
    spread = sum_partials(sums + F, programs, 3 * F, f, wanted)
    for program in range(programs):
        row = sums + program * 3 * F + f
        ones = tl.load(row, mask=wanted, other=0.0, cache_modifier=".cg")
        count = tl.load(row + 2 * F, mask=wanted, other=1.0, cache_modifier=".cg")
        difference = ones - count * mean
        spread += difference * difference / count
    return mean, spread / total


@triton.jit
def finish_norm(
    program_count,
    pivot,
    ones,
    squares,
    f,
    wanted,
    program,
    programs,
    group,
    groups,
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
    """Write one program's sums of channels f; the last program to come makes the norm of them.

    Tickets 0 … groups - 1 are one for each group of channels, ticket ``groups`` counts the groups.
    """
    if TRAINING:
        row = sums + program * 3 * F + f
        tl.store(row, pivot * program_count + ones, mask=wanted)
        tl.store(row + F, squares - ones * ones / program_count, mask=wanted)
        tl.store(row + 2 * F, tl.zeros(f.shape, tl.float32) + program_count, mask=wanted)
    if last_to_arrive(tickets, group, programs):
        if TRAINING:
            mean, variance = sum_statistics(sums, programs, f, wanted, count, F)
            seen = tl.load(batches) + 1
            # Without a momentum, running statistics are plain means over batches.
            share = momentum
            if momentum < 0.0:
                share = 1.0 / seen.to(tl.float32)
            old_mean = tl.load(running_mean + f, mask=wanted)
            old_variance = tl.load(running_variance + f, mask=wanted)
            unbiased = variance * (count / (count - 1.0))
            tl.store(running_mean + f, old_mean + share * (mean - old_mean), mask=wanted)
            tl.store(running_variance + f, old_variance + share * (unbiased - old_variance), mask=wanted)
            # Counted once, after every group has read the count.
            if last_to_arrive(tickets, groups, groups):
                tl.store(batches, seen)
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
def norm_gradient(d_normal, statistics, gamma, f, wanted, inverse_count, F: tl.constexpr):
    """(offset, slope, d_gamma, d_beta) of channels f."""
    mean = tl.load(statistics + f, mask=wanted, other=0.0)
    inverse = tl.load(statistics + F + f, mask=wanted, other=0.0)
    d_scale = tl.load(d_normal + f, mask=wanted, other=0.0)
    d_shift = tl.load(d_normal + F + f, mask=wanted, other=0.0)
    scale = tl.load(gamma + f, mask=wanted, other=0.0) * inverse
    d_gamma = (d_scale - mean * d_shift) * inverse
    slope = -scale * d_gamma * inverse * inverse_count
    offset = -scale * d_shift * inverse_count - slope * mean
    return offset, slope, d_gamma, d_shift


@triton.jit
def load_gradient(g, z, at_g, at_z, mask, offset, slope, NORM: tl.constexpr):
    """fp32 gradient of z: g, and where a norm followed offset + slope z; 0 outside the mask."""
    gradient = tl.load(g + at_g, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        value = tl.load(z + at_z, mask=mask, other=0.0).to(tl.float32)
        gradient += tl.where(mask, offset[None, :] + slope[None, :] * value, 0.0)
    return gradient


def check_norm(norm: nn.BatchNorm2d, pixels: int) -> None:
    """Refuse a batch norm without what the kernels update.

    Raises:
        BackendError: no affine, no running statistics, or training on one value a channel.
    """
    if norm.weight is None or norm.running_mean is None:
        raise BackendError("batch norm without affine or running statistics: allowed is one with both")
    if norm.training and pixels == 1:
        raise BackendError("batch norm trained on 1 value per channel: allowed are 2 or more")


def new_normal(norm: nn.BatchNorm2d) -> Normal:
    """Memory for the norm of a batch."""
    shape = (2, norm.num_features)
    affine, statistics = (torch.empty(shape, dtype=torch.float32, device=norm.weight.device) for _ in "as")
    return Normal(affine, statistics)


def forward_arguments(norm: nn.BatchNorm2d | None, normal: Normal | None, out: Tensor) -> dict[str, Any]:
    """The arguments of `finish_norm` that come from the module; None for a convolution without one."""
    names = ("gamma", "beta", "running_mean", "running_variance", "batches", "normal", "statistics")
    tensors: tuple[Tensor | None, ...] = (None,) * len(names)
    momentum, eps = 0.0, 0.0
    if norm is not None and normal is not None:
        tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked)
        tensors += normal
        momentum, eps = -1.0 if norm.momentum is None else norm.momentum, norm.eps
    return dict(zip(names, tensors, strict=True)) | {
        "count": float(out.shape[0] * out.shape[2] * out.shape[3]),
        "momentum": momentum,
        "eps": eps,
        "NORM": norm is not None,
        "TRAINING": norm is not None and norm.training,
    }


def backward_arguments(result: Result) -> dict[str, Any]:
    """The arguments of `load_gradient` and room for the norm's own gradients."""
    n, f, h, w = result.z.shape
    d_normal = result.d_affine
    if result.normal is not None and d_normal is None:
        d_normal = torch.zeros_like(result.normal.affine)
    room = None if result.normal is None else torch.empty_like(result.normal.affine)
    return {
        "result": result.z,
        "g": result.g,
        "statistics": None if result.normal is None else result.normal.statistics,
        "d_normal": d_normal,
        "gamma": result.gamma,
        "d_norm": room,
        "inverse_count": 1.0 / (n * h * w) if result.training else 0.0,
        "NORM": result.normal is not None,
        "F": f,
    }


def gradients_of(weights: tuple[Tensor, ...], d_norm: Tensor | None) -> Gradients:
    """Gradients from the buffers a backward kernel wrote."""
    if d_norm is None:
        return Gradients(weights, None, None)
    gamma, beta = d_norm
    return Gradients(weights, gamma, beta)
