"""What the kernels of a device must offer besides `Primitives` to do several operations in one launch.

Operations done together are alike: same shapes, strides, types and settings, and no two of them read the
same source, so that none adds to a gradient another one is writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from pnas_fast.kernels.activation import Accumulator
from pnas_fast.kernels.fused.primitives import (
    Convolution,
    Gradients,
    Normal,
    Pooled,
    Primitives,
    Result,
    Source,
)


class Forward(NamedTuple):
    """A convolution to do; see `Primitives.convolution`."""

    source: Source
    weights: tuple[Tensor, ...]
    norm: nn.BatchNorm2d | None
    out: Tensor


class Backward(NamedTuple):
    """A convolution's backward to do; see `Primitives.convolution_backward`."""

    source: Source
    weights: tuple[Tensor, ...]
    result: Result
    into: Accumulator | None


class Sum(NamedTuple):
    """An addition to do; see `Primitives.add`."""

    left: Pooled
    right: Pooled | None
    out: Tensor


class SumBackward(NamedTuple):
    """The backward of one side of an addition to do; see `Primitives.add_backward`."""

    side: Pooled
    g: Tensor
    into: Accumulator


class GroupedPrimitives(Primitives, Protocol):
    """The kernels of one device, which do operations that are alike together."""

    def convolutions(self, convolution: Convolution, problems: Sequence[Forward]) -> Sequence[Normal | None]:
        """Each as `Primitives.convolution`."""

    def convolutions_backward(
        self, convolution: Convolution, problems: Sequence[Backward]
    ) -> Sequence[Gradients]:
        """Each as `Primitives.convolution_backward`."""

    def adds(self, problems: Sequence[Sum]) -> None:
        """Each as `Primitives.add`."""

    def adds_backward(self, problems: Sequence[SumBackward]) -> None:
        """Each as `Primitives.add_backward`."""
