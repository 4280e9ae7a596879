"""What the kernels of a device must offer: each fused operation forward and backward, on plain tensors.

Activations are (N, C, H, W) in NHWC memory and may be slices of wider tensors; nothing here knows of
autograd. Weights may have any strides; their gradients share shape and strides with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pnas_fast.kernels.activation import Accumulator
from pnas_fast.kernels.arguments import Limits
from pnas_fast.kernels.backend import PoolKind


class Source(NamedTuple):
    """What an operation reads: ``scale * z + shift`` with affine (2, C), or z itself where it is None."""

    z: Tensor
    affine: Tensor | None


class Convolution(NamedTuple):
    """A SAME-padded convolution, preceded by a ReLU if ``rectify``.

    ``kind`` says which weights it has and what it computes:

    * ``separable``: depthwise (C, 1, k, k) with stride and dilation, then pointwise (F, C, 1, 1);
    * ``dense``: one weight (F, C, kh, kw), dilation 1;
    * ``factorized``: even (F // 2, C, 1, 1) over pixels [::2, ::2] and odd (F - F // 2, C, 1, 1) over
      [1::2, 1::2], pixels past the edge being zero; their outputs side by side.
    """

    kind: Literal["separable", "dense", "factorized"]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: int = 1
    rectify: bool = True


class Normal(NamedTuple):
    """The batch norm of one batch: its affine (2, F), scale and shift, and statistics (2, F).

    Statistics are mean and 1 / std: the batch's, or the running ones in evaluation mode.
    """

    affine: Tensor
    statistics: Tensor


class Result(NamedTuple):
    """What a convolution's backward knows of its result.

    Attributes:
        z: the un-normalised output.
        g: the gradient that reached z from its readers, of its shape; perhaps a slice of a wider tensor.
            What batch statistics add to it, ``offset + slope * z``, is for the backward to work out.
        normal: of the batch norm that followed, None where there was none.
        d_affine: (2, F), the gradient that reached the norm's affine.
        gamma: the norm's weight.
        training: whether statistics were the batch's.
        pending: whether g has yet to be multiplied by the norm's scale; never of a convolution whose kind
            is not one of `Primitives.multiplies`.
    """

    z: Tensor
    g: Tensor
    normal: Normal | None
    d_affine: Tensor | None
    gamma: Tensor | None
    training: bool
    pending: bool


class Gradients(NamedTuple):
    """Of a convolution's weights, and of its norm's weight and bias."""

    weights: tuple[Tensor, ...]
    gamma: Tensor | None
    beta: Tensor | None


class Pooled(NamedTuple):
    """One side of an addition: a source, its 3×3 pool if any, and a multiplier per image if any."""

    source: Source
    pool: PoolKind | None
    stride: int
    keep: Tensor | None


class Forward(NamedTuple):
    """A convolution to do."""

    source: Source
    weights: tuple[Tensor, ...]
    norm: nn.BatchNorm2d | None
    out: Tensor


class Backward(NamedTuple):
    """A convolution's backward to do; the gradient of its source goes into ``into`` unless None."""

    source: Source
    weights: tuple[Tensor, ...]
    result: Result
    into: Accumulator | None


class Sum(NamedTuple):
    """A sum of two sides, or one alone, to write to ``out``."""

    left: Pooled
    right: Pooled | None
    out: Tensor


class SumBackward(NamedTuple):
    """The gradient of one side's source, into ``into``, from that of a sum.

    Where ``d_affine`` is given instead, (2, C), only the gradients of scale and shift are wanted, and written
    there: of a side without pool and multiplier, whose source g itself is handed on to.
    """

    side: Pooled
    g: Tensor
    into: Accumulator | None
    d_affine: Tensor | None = None


class Primitives(Protocol):
    """The kernels of one device.

    Operations come as lists of problems that are alike: same shapes, strides, types and settings, and no two
    of them read the same source, so that none adds to a gradient another one is writing. Some devices do all
    in one launch.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    multiplies: frozenset[str]
    """Kinds of convolutions whose backward takes a gradient yet to be multiplied by the norm's scale."""

    @property
    def limits(self) -> Limits:
        """What they can read; what they are given was compared with it."""

    def convolutions(self, convolution: Convolution, problems: Sequence[Forward]) -> Sequence[Normal | None]:
        """Write each un-normalised output to its ``out``; return the norm of each batch, if there is a norm.

        While training the norms' running statistics move.
        """

    def convolutions_backward(
        self, convolution: Convolution, problems: Sequence[Backward]
    ) -> Sequence[Gradients]:
        """Gradients of weights and norms, and of sources where they are wanted; each g is in NHWC memory."""

    def adds(self, problems: Sequence[Sum]) -> None:
        """Write each sum."""

    def adds_backward(self, problems: Sequence[SumBackward]) -> None:
        """Gradients of sides of several sums, the same sides of each: all left ones, then all right ones.

        Unlike other problems they may read the same source: what is added to one is added in their order.
        """

    def global_average(self, source: Source, out: Tensor) -> None:
        """Write the mean of relu(source) over pixels to ``out`` (N, C)."""

    def global_average_backward(self, source: Source, g: Tensor, into: Accumulator) -> None:
        """Gradient of the source from that of the mean, (N, C)."""
