"""What autograd functions of fused operations share, whatever the device; concatenation and average.

Each saves what its backward recomputes from and no more; gradients of a shared source are added up in
place (see `GradientSink`). Differentiating twice is refused by PyTorch, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pnas_fast.kernels.activation import Accumulator, Activation, GradientSink, new_gradient
from pnas_fast.kernels.backend import PoolKind
from pnas_fast.kernels.fused.primitives import Convolution, Normal, Primitives, Source
from pnas_fast.kernels.shared_norm import SharedBatchNorm2d

Gradients = tuple[Tensor | None, Tensor | None]


def new_output(z: Tensor | Activation, channels: int, stride: tuple[int, int]) -> Tensor:
    """Memory for an operation's result, NHWC."""
    shape = (z.shape[0], channels, -(-z.shape[2] // stride[0]), -(-z.shape[3] // stride[1]))
    return torch.empty(shape, dtype=z.dtype, device=z.device, memory_format=torch.channels_last)


def claim(sink: GradientSink | None, source: Source) -> Accumulator:
    """Where a reader puts its share of a source's gradient; without a sink it is the only reader."""
    return new_gradient(*source) if sink is None else sink.claim(*source)


def count_readers(sinks: Iterable[GradientSink | None]) -> None:
    """Tell activations that an operation reads them."""
    for sink in sinks:
        if sink is not None:
            sink.readers += 1


def handed_over(into: Accumulator | None) -> Gradients:
    """What a reader gives to autograd: the gradients it began, nothing if it added to another's."""
    return (None, None) if into is None or into.accumulate else (into.z, into.affine)


def owned(sink: GradientSink, g: Tensor | None) -> Tensor | None:
    """A result's gradient in NHWC memory, its sink let go of."""
    complete = g is not None and sink.holds(g)
    sink.clear()
    return g if g is None or complete else g.contiguous(memory_format=torch.channels_last)


def over_processes(norm: nn.BatchNorm2d | None, normal: Normal | None, out: Tensor) -> Normal | None:
    """What a norm made of a convolution's result, of all processes' batches where they share it."""
    if normal is None or not isinstance(norm, SharedBatchNorm2d) or not norm.training:
        return normal
    return Normal(*norm.share(normal.statistics, out.numel() // out.shape[1]))


def gradient_over_processes(
    norm: nn.BatchNorm2d | None, d_affine: Tensor | None, *, training: bool
) -> Tensor | None:
    """The gradient of a norm's scale and shift that its backward goes on with."""
    if d_affine is None or not training or not isinstance(norm, SharedBatchNorm2d):
        return d_affine
    return norm.share_gradient(d_affine)


def filters(convolution: Convolution, weights: tuple[Tensor, ...]) -> int:
    """Channels of a convolution's output."""
    match convolution.kind:
        case "separable":
            return weights[1].shape[0]
        case "dense":
            return weights[0].shape[0]
        case "factorized":
            return weights[0].shape[0] + weights[1].shape[0]


class SideCall(NamedTuple):
    """What `Add` is told of a side besides tensors."""

    pool: PoolKind | None
    stride: int
    keep: Tensor | None
    sink: GradientSink | None


class Room:
    """Memory for a result, handed to a function once.

    As a tensor argument autograd would take it for an input; kept by a function it would keep itself alive.
    """

    __slots__ = ("_memory",)

    def __init__(self, memory: Tensor) -> None:
        self._memory: Tensor | None = memory

    def take(self) -> Tensor:
        """The memory."""
        memory, self._memory = self._memory, None
        assert memory is not None
        return memory


class Concatenate(Function):
    """The memory that blocks have written to, as one tensor: nothing is copied, forward or backward."""

    @staticmethod
    def forward(
        ctx: Any, sinks: list[GradientSink], sink: GradientSink, room: Room, *blocks: Tensor
    ) -> Tensor:
        """``sinks`` are those of the blocks, ``sink`` that of the result."""
        ctx.sinks, ctx.sink = sinks, sink
        ctx.channels = blocks[0].shape[1]
        ctx.set_materialize_grads(False)
        return room.take()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        """To each block its slice, where its other readers add theirs: this reader is always the first."""
        if g is None:
            return (None,) * (3 + len(ctx.sinks))
        if not ctx.sink.holds(g):
            g = g.clone(memory_format=torch.channels_last)
        ctx.sink.clear()
        slices = torch.split(g, ctx.channels, dim=1)
        for sink, part in zip(ctx.sinks, slices, strict=True):
            sink.put(part)
        return (None, None, None, *slices)


class GlobalAverage(Function):
    """The mean of relu(z) over pixels."""

    @staticmethod
    def forward(ctx: Any, kernels: Primitives, sink: GradientSink | None, z: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        ctx.kernels, ctx.sink = kernels, sink
        ctx.save_for_backward(z)
        out = torch.empty(z.shape[:2], dtype=z.dtype, device=z.device)
        kernels.global_average(Source(z, None), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """To each pixel that is positive."""
        (z,) = ctx.saved_tensors
        into = claim(ctx.sink, Source(z, None))
        ctx.kernels.global_average_backward(Source(z, None), g.contiguous(), into)
        return None, None, handed_over(into)[0]
