"""`Backend` in terms of fused kernels."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from pnas_fast.kernels.activation import Activation, GradientSink
from pnas_fast.kernels.arguments import Arguments
from pnas_fast.kernels.backend import CellOutput, PoolKind, Side
from pnas_fast.kernels.fused.batched_functions import Adds, AddsCall, Convolutions, ConvolutionsCall
from pnas_fast.kernels.fused.functions import Concatenate, GlobalAverage, Room, SideCall, new_output
from pnas_fast.kernels.fused.primitives import Convolution, Primitives

Fused = Tensor | Activation
"""What fused operations read; they return activations."""


class FusedBackend:
    """Fused operations on one device's kernels; see `Backend` for their mathematics.

    Results are `Activation`s whose batch norm is pending; `materialise` gives a tensor.
    """

    branches = False
    records = True
    warms = False

    def __init__(self, kernels: Primitives) -> None:
        self.name, self.dtypes = kernels.name, kernels.dtypes
        self._kernels = kernels

    def arrange(self, depthwise: Tensor) -> Tensor:
        """See `Backend.arrange`."""
        return depthwise

    @cached_property
    def _arguments(self) -> Arguments:
        return Arguments(self._kernels.limits)

    def convolution(
        self,
        x: Fused,
        weight: Tensor,
        norm: nn.BatchNorm2d | None,
        *,
        stride: tuple[int, int] = (1, 1),
        rectify: bool = True,
    ) -> Fused:
        """See `Backend.convolution`."""
        self._arguments.convolution(x, weight, norm, stride)
        convolution = Convolution("dense", (weight.shape[2], weight.shape[3]), stride, rectify=rectify)
        return self._convolve(x, convolution, norm, weight)

    def separable(
        self,
        x: Fused,
        depthwise: Tensor,
        pointwise: Tensor,
        norm: nn.BatchNorm2d,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> Fused:
        """See `Backend.separable`."""
        self._arguments.separable(x, depthwise, pointwise, norm, stride, dilation)
        kernel = (depthwise.shape[2], depthwise.shape[3])
        convolution = Convolution("separable", kernel, (stride, stride), dilation)
        return self._convolve(x, convolution, norm, depthwise, pointwise)

    def factorized_reduction(
        self, x: Fused, even: Tensor, odd: Tensor, norm: nn.BatchNorm2d, *, rectify: bool = True
    ) -> Fused:
        """See `Backend.factorized_reduction`."""
        self._arguments.factorized_reduction(x, even, odd, norm)
        convolution = Convolution("factorized", stride=(2, 2), rectify=rectify)
        return self._convolve(x, convolution, norm, even, odd)

    def pool(self, x: Fused, kind: PoolKind, stride: int) -> Fused:
        """See `Backend.pool`."""
        self._arguments.pool(x, kind, stride)
        return self._add([Side(x, kind, stride)], None)

    def add(self, left: Side[Fused], right: Side[Fused] | None, output: CellOutput, block: int) -> Fused:
        """See `Backend.add`."""
        self._arguments.add(left, right, output, block)
        channels = left.state.shape[1]
        if output.memory is None:
            output.memory = new_output(left.state, channels * output.blocks, (left.stride, left.stride))
        # Memory of its own as far as autograd knows: it must not take blocks for views of one tensor.
        memory = output.memory
        out = torch.empty(0, dtype=memory.dtype, device=memory.device)
        shape = (memory.shape[0], channels, *memory.shape[2:])
        out.set_(memory.untyped_storage(), block * channels, shape, memory.stride())
        written = self._add([left] if right is None else [left, right], out)
        output.written[block] = written
        return written

    def concatenate(self, states: list[Fused], output: CellOutput) -> Fused:
        """See `Backend.concatenate`."""
        self._arguments.concatenate(states, output)
        output.written.clear()
        blocks = [state for state in states if isinstance(state, Activation)]
        assert output.memory is not None
        room, output.memory = Room(output.memory), None
        sink = GradientSink()
        z = Concatenate.apply([b.sink for b in blocks], sink, room, *[b.z for b in blocks])  # type: ignore[no-untyped-call]
        return Activation(z, None, sink)

    def global_average(self, x: Fused) -> Tensor:
        """See `Backend.global_average`."""
        self._arguments.state(x)
        z, sink = (
            (x.z, x.sink) if isinstance(x, Activation) and x.affine is None else (self.materialise(x), None)
        )
        average: Tensor = GlobalAverage.apply(self._kernels, sink, z)  # type: ignore[no-untyped-call]
        return average

    def materialise(self, x: Fused) -> Tensor:
        """See `Backend.materialise`."""
        self._arguments.state(x)
        return self._add([Side(x)], None).z

    def _convolve(
        self, x: Fused, convolution: Convolution, norm: nn.BatchNorm2d | None, *weights: Tensor
    ) -> Activation:
        z, affine, source_sink = _read(x)
        sink = GradientSink()
        call = ConvolutionsCall(self._kernels, convolution, [norm], [source_sink], [sink])
        gamma, beta = (None, None) if norm is None else (norm.weight, norm.bias)
        out, normal = Convolutions.apply(call, z, affine, gamma, beta, *weights)  # type: ignore[no-untyped-call]
        return Activation(out, normal, sink)

    def _add(self, sides: list[Side[Fused]], out: Tensor | None) -> Activation:
        tensors: list[Tensor | None] = []
        calls = []
        for side in sides:
            z, affine, sink = _read(side.state)
            tensors += [z, affine]
            calls.append(SideCall(side.pool, side.stride, side.keep, sink))
        if out is None:
            stride = sides[0].stride
            out = new_output(sides[0].state, sides[0].state.shape[1], (stride, stride))
        result_sink = GradientSink()
        (z,) = Adds.apply(AddsCall(self._kernels, [calls], [result_sink]), [Room(out)], *tensors)  # type: ignore[no-untyped-call]
        return Activation(z, None, result_sink)


def _read(x: Fused) -> tuple[Tensor, Tensor | None, GradientSink | None]:
    return (x.z, x.affine, x.sink) if isinstance(x, Activation) else (x, None, None)
