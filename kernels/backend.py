"""What a backend must do: the fused operations of the search space, in one vocabulary.

Layout is NHWC in memory (`torch.channels_last`) behind ordinary (N, C, H, W) shapes. Convolutions and
pools pad as TensorFlow's SAME does: the output of size n at stride s is ceil(n / s), and an odd pixel of
padding goes to the bottom and right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

S = TypeVar("S")

State = Any
"""What flows between operations: a backend's own form of an activation (N, C, H, W).

A tensor is one everywhere; all have ``shape``, ``device`` and ``dtype``.
"""

PoolKind = Literal["avg", "max"]


class BackendError(ValueError):
    """A backend that does not exist, or that cannot serve a device, a dtype or a layout."""


class Side(NamedTuple, Generic[S]):
    """One side of a block's addition: a state, or a 3×3 pool of one that the addition may fuse.

    ``keep`` holds a multiplier per image, (N, 1, 1, 1), where drop-path is active.
    """

    state: S
    pool: PoolKind | None = None
    stride: int = 1
    keep: Tensor | None = None


@dataclass(slots=True)
class CellOutput:
    """Where the blocks of one cell write, so that their concatenation copies nothing.

    ``blocks`` is how many states are concatenated. The others are the backend's: one forward pass of one cell
    holds what its blocks have written, by their places, and the memory that is in.
    """

    blocks: int
    memory: Tensor | None = None
    written: dict[int, State] = field(default_factory=dict)


class Backend(Protocol[S]):
    """Fused operations, forward and backward. Implementations are stateless.

    An operation computes in the type of its activations; weights and statistics stay in theirs. What it
    cannot serve it refuses with a `BackendError` (see `pnas_fast.kernels.arguments`), before computing.

    Attributes:
        name: in `pnas_fast.kernels.BACKENDS`.
        dtypes: of the activations that it can read.
        warms: whether kernels are compiled when they are first launched, so that who starts many children
            does well to have them compiled before (`pnas_fast.kernel_tools.warm`).
        branches: whether independent operations, whose states are tensors then, may run on streams of
            their own. (Not where readers of one activation add to its gradient in place.)
        records: whether a training step is worth recording (see `pnas_fast.kernels.recording`): operations
            are calls of the compiled module then.
    """

    branches: bool
    records: bool
    warms: bool

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]: ...  # noqa: D102

    def arrange(self, depthwise: Tensor) -> Tensor:
        """A depthwise weight (C, 1, k, k) with its values laid in memory as they are read fastest."""

    def convolution(
        self,
        x: S,
        weight: Tensor,
        norm: nn.BatchNorm2d | None,
        *,
        stride: tuple[int, int] = (1, 1),
        rectify: bool = True,
    ) -> S:
        """``norm(conv(relu(x)))``, dense and SAME-padded.

        Args:
            x: (N, C, H, W).
            weight: (F, C, kh, kw); 1×1, 1×7, 7×1 and the stem's 3×3 are used.
            norm: batch norm of the F outputs, or None for none.
            stride: along (H, W), each 1 or 2.
            rectify: whether a ReLU comes first.
        """

    def separable(
        self,
        x: S,
        depthwise: Tensor,
        pointwise: Tensor,
        norm: nn.BatchNorm2d,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> S:
        """``norm(pointwise(depthwise(relu(x))))``: one half of a separable convolution.

        Args:
            x: (N, C, H, W).
            depthwise: (C, 1, k, k), SAME-padded, with the stride and dilation.
            pointwise: (F, C, 1, 1).
            norm: batch norm of the F outputs.
            stride: along both axes, 1 or 2.
            dilation: of the depthwise kernel.
        """

    def factorized_reduction(
        self, x: S, even: Tensor, odd: Tensor, norm: nn.BatchNorm2d, *, rectify: bool = True
    ) -> S:
        """Halve the map: ``norm(concat(even * r[::2, ::2], odd * r[1::2, 1::2]))`` with ``r = relu(x)``.

        The second path reads a zero row and column past the bottom and right edge, so that both have
        ceil(H / 2) × ceil(W / 2) pixels.

        Args:
            x: (N, C, H, W).
            even: (F // 2, C, 1, 1).
            odd: (F - F // 2, C, 1, 1).
            norm: batch norm of the F outputs.
            rectify: whether r is relu(x) or x itself.
        """

    def pool(self, x: S, kind: PoolKind, stride: int) -> S:
        """3×3 SAME pool of stride 1 or 2; the average is over the pixels inside the image."""

    def add(self, left: Side[S], right: Side[S] | None, output: CellOutput, block: int) -> S:
        """A block's output: the sum of its two sides, each pooled and scaled as it says.

        Args:
            left: one side.
            right: the other, of the same shape; without one the left side is put in its place.
            output: of the cell.
            block: the place in it, counted from 0, in which nothing is yet.
        """

    def concatenate(self, states: list[S], output: CellOutput) -> S:
        """A cell's output: the states that `add` put in its places, all of them, in order of channels."""

    def global_average(self, x: S) -> Tensor:
        """(N, C, H, W) to (N, C): the mean of relu(x) over all pixels."""

    def materialise(self, x: S) -> Tensor:
        """An ordinary (N, C, H, W) tensor, its batch norm applied."""
