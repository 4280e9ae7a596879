"""Convolutions and sums as autograd functions: one or several that are alike, forward and backward together.

Autograd calls the backward when the gradients of all results have come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pnas_fast.kernels.activation import GradientSink
from pnas_fast.kernels.fused.functions import (
    Gradients,
    Room,
    SideCall,
    claim,
    count_readers,
    filters,
    gradient_over_processes,
    handed_over,
    new_output,
    over_processes,
    owned,
)
from pnas_fast.kernels.fused.primitives import (
    Backward,
    Convolution,
    Forward,
    Normal,
    Pooled,
    Primitives,
    Result,
    Source,
    Sum,
    SumBackward,
)
from pnas_fast.kernels.layout import is_nhwc


@dataclass(slots=True)
class ConvolutionsCall:
    """What `Convolutions` is told besides tensors; a norm and two sinks for each problem."""

    kernels: Primitives
    convolution: Convolution
    norms: list[nn.BatchNorm2d | None]
    source_sinks: list[GradientSink | None]
    sinks: list[GradientSink]


class Convolutions(Function):
    """(z, affine) of each of several convolutions and the batch norms that follow them, if any."""

    @staticmethod
    def forward(ctx: Any, call: ConvolutionsCall, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """``tensors``: z, affine, gamma, beta and the weights of each problem; results: z and affine."""
        convolution, problems, saved = call.convolution, [], []
        count_readers(call.source_sinks)
        for sink, norm in zip(call.sinks, call.norms, strict=True):
            sink.multiplies = norm is not None and convolution.kind in call.kernels.multiplies
        for norm, (z, affine, _, _, *weights) in zip(call.norms, _shares(tensors, call.norms), strict=True):
            out = new_output(z, filters(convolution, tuple(weights)), convolution.stride)
            problems.append(Forward(Source(z, affine), tuple(weights), norm, out))
        done = zip(problems, call.kernels.convolutions(convolution, problems), strict=True)
        normals = [over_processes(problem.norm, normal, problem.out) for problem, normal in done]
        for problem, normal in zip(problems, normals, strict=True):
            gamma = None if problem.norm is None else problem.norm.weight
            saved += [*problem.source, gamma, problem.out, *(normal or (None, None)), *problem.weights]
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.training = [norm is not None and norm.training for norm in call.norms]
        ctx.save_for_backward(*saved)
        pairs = zip(problems, normals, strict=True)
        return tuple(x for problem, normal in pairs for x in (problem.out, normal and normal.affine))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *g: Tensor | None) -> tuple[Tensor | None, ...]:
        """Through the norms, then the convolutions, of those whose results were used."""
        call: ConvolutionsCall = ctx.call
        shares = list(_shares(ctx.saved_tensors, call.norms))
        inputs = (len(ctx.needs_input_grad) - 1) // len(shares)
        found: list[tuple[Tensor | None, ...]] = [(None,) * inputs] * len(shares)
        problems = {}
        for place, (z, affine, gamma, out, normal_affine, statistics, *weights) in enumerate(shares):
            pending = call.sinks[place].is_pending()
            call.sinks[place].clear()
            upstream, d_affine = g[2 * place : 2 * place + 2]
            if upstream is None:
                continue
            if not is_nhwc(upstream):  # of a reader that is none of these functions
                upstream = upstream.contiguous(memory_format=torch.channels_last)
            normal = None if statistics is None else Normal(normal_affine, statistics)
            d_affine = gradient_over_processes(call.norms[place], d_affine, training=ctx.training[place])
            result = Result(out, upstream, normal, d_affine, gamma, ctx.training[place], pending)
            wanted = ctx.needs_input_grad[1 + place * inputs]
            into = claim(call.source_sinks[place], Source(z, affine)) if wanted else None
            problems[place] = Backward(Source(z, affine), tuple(weights), result, into)
        if problems:
            gradients = call.kernels.convolutions_backward(call.convolution, list(problems.values()))
            for (place, problem), own in zip(problems.items(), gradients, strict=True):
                found[place] = (*handed_over(problem.into), own.gamma, own.beta, *own.weights)
        return (None, *(x for own in found for x in own))


@dataclass(slots=True)
class AddsCall:
    """What `Adds` is told besides tensors; for each problem its sides and the sink of its result."""

    kernels: Primitives
    sides: list[list[SideCall]]
    sinks: list[GradientSink]


class Adds(Function):
    """Several sums of one or two sides each, written to memory that the caller gives."""

    @staticmethod
    def forward(
        ctx: Any, call: AddsCall, rooms: Sequence[Room], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """``tensors``: z and affine of each side of each problem."""
        outs = tuple(room.take() for room in rooms)
        sides = _sides(call, tensors)
        for own in call.sides:
            count_readers(side.sink for side in own)
        call.kernels.adds(
            [Sum(own[0], own[1] if len(own) > 1 else None, out) for own, out in zip(sides, outs, strict=True)]
        )
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return outs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *g: Tensor | None) -> tuple[Tensor | None, ...]:
        """To each side its share, or g itself where that may be."""
        call: AddsCall = ctx.call
        sides = _sides(call, ctx.saved_tensors)
        upstream = [owned(sink, one) for sink, one in zip(call.sinks, g, strict=True)]
        count = len(call.sides[0])
        gradients: list[Tensor | None] = [None] * (2 + 2 * count * len(sides))
        problems = []
        for index in range(count):
            for place, (own, one) in enumerate(zip(sides, upstream, strict=True)):
                at = 2 + 2 * (place * count + index)
                if one is not None and ctx.needs_input_grad[at]:
                    problem, gradients[at : at + 2] = _share(call.sides[place][index].sink, own[index], one)
                    problems.append(problem)
        if problems:
            call.kernels.adds_backward(problems)
        return tuple(gradients)


def _share(sink: GradientSink | None, side: Pooled, g: Tensor) -> tuple[SumBackward, Gradients]:
    """What is to do for one side of a sum, and what it gives to autograd."""
    affine = side.source.affine
    alone = sink is not None and sink.readers == 1 and sink.multiplies
    if sink is None or not alone or affine is None or side.pool is not None or side.keep is not None:
        into = claim(sink, side.source)
        return SumBackward(side, g, into), handed_over(into)
    sink.put_pending(g)
    d_affine = torch.empty_like(affine)
    return SumBackward(side, g, None, d_affine), (g, d_affine)


def _shares(tensors: Sequence[Any], problems: Sequence[object]) -> Iterator[Sequence[Any]]:
    """Tensors of each problem, of which all have as many."""
    size = len(tensors) // len(problems)
    return (tensors[first : first + size] for first in range(0, len(tensors), size))


def _sides(call: AddsCall, tensors: Sequence[Any]) -> list[list[Pooled]]:
    shares = zip(call.sides, _shares(tensors, call.sides), strict=True)
    return [
        [
            Pooled(Source(*own[2 * index : 2 * index + 2]), side.pool, side.stride, side.keep)
            for index, side in enumerate(sides)
        ]
        for sides, own in shares
    ]
