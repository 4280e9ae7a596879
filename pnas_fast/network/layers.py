"""Layers of the fused operations, which hold their parameters: what a network is made of, on any backend.

A layer owns weights and a batch norm, knows its output shape and its multiply-adds, and leaves the
arithmetic to a backend. Parameter names and shapes do not depend on the backend, so weights trained on
one load on another.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pnas_fast.kernels import Backend, State


class Shape(NamedTuple):
    """The shape of one image's activation."""

    channels: int
    height: int
    width: int

    def strided(self, channels: int, stride: int) -> Shape:
        """The SAME-padded result of an operation with so many outputs and this stride."""
        return Shape(channels, -(-self.height // stride), -(-self.width // stride))


def new_weight(outputs: int, inputs: int, height: int, width: int, groups: int = 1) -> nn.Parameter:
    """A convolution's weight, normal with variance 2 / fan_out (docs/method.md, 3.3)."""
    fan_out = outputs // groups * height * width
    weight = torch.randn(outputs, inputs, height, width).mul_(math.sqrt(2.0 / max(fan_out, 1)))
    return nn.Parameter(weight)


class Layer(nn.Module):
    """A fused operation with its parameters.

    Attributes:
        shape: of one image's output.
        multiply_adds: of convolutions for one image; normalisation, pools and additions are not counted.
    """

    def __init__(self, backend: Backend[State], shape: Shape) -> None:
        super().__init__()
        self.backend = backend
        self.shape = shape
        self.multiply_adds = 0

    def _count(self, *weights: Tensor) -> None:
        self.multiply_adds += sum(weight.numel() for weight in weights) * self.shape.height * self.shape.width


class Convolution(Layer):
    """[ReLU,] dense convolution SAME[, batch norm].

    Args:
        backend: does the arithmetic.
        source: the input's shape.
        filters: output channels.
        kernel: (height, width).
        stride: along (height, width).
        rectify: a ReLU before the convolution.
        normalise: a batch norm after it.
    """

    def __init__(
        self,
        backend: Backend[State],
        source: Shape,
        filters: int,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        rectify: bool = True,
        normalise: bool = True,
    ) -> None:
        height, width = -(-source.height // stride[0]), -(-source.width // stride[1])
        super().__init__(backend, Shape(filters, height, width))
        self.stride = stride
        self.rectify = rectify
        self.weight = new_weight(filters, source.channels, *kernel)
        self.norm = nn.BatchNorm2d(filters) if normalise else None
        self._count(self.weight)

    def forward(self, x: State) -> State:
        """(N, C, H, W) to (N, filters, ceil(H / stride), ceil(W / stride))."""
        return self.backend.convolution(x, self.weight, self.norm, stride=self.stride, rectify=self.rectify)


class SeparableHalf(Layer):
    """ReLU, depthwise k×k, pointwise, batch norm: half of a separable convolution."""

    def __init__(
        self,
        backend: Backend[State],
        source: Shape,
        filters: int,
        *,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(backend, source.strided(filters, stride))
        self.stride = stride
        self.dilation = dilation
        self.depthwise = new_weight(source.channels, 1, kernel, kernel, groups=source.channels)
        self.pointwise = new_weight(filters, source.channels, 1, 1)
        self.norm = nn.BatchNorm2d(filters)
        self._count(self.depthwise, self.pointwise)

    def arrange(self) -> None:
        """Lay the depthwise weight in memory as the backend reads it fastest."""
        self.depthwise.data = self.backend.arrange(self.depthwise.data)

    def forward(self, x: State) -> State:
        """(N, C, H, W) to (N, filters, ceil(H / stride), ceil(W / stride))."""
        return self.backend.separable(
            x, self.depthwise, self.pointwise, self.norm, stride=self.stride, dilation=self.dilation
        )


class FactorizedReduction(Layer):
    """[ReLU,] two strided 1×1 paths one pixel apart, concatenated, batch norm (docs/method.md, 1.3)."""

    def __init__(self, backend: Backend[State], source: Shape, filters: int, *, rectify: bool = True) -> None:
        super().__init__(backend, source.strided(filters, 2))
        self.rectify = rectify
        self.even = new_weight(filters // 2, source.channels, 1, 1)
        self.odd = new_weight(filters - filters // 2, source.channels, 1, 1)
        self.norm = nn.BatchNorm2d(filters)
        self._count(self.even, self.odd)

    def forward(self, x: State) -> State:
        """(N, C, H, W) to (N, filters, ceil(H / 2), ceil(W / 2))."""
        return self.backend.factorized_reduction(x, self.even, self.odd, self.norm, rectify=self.rectify)
