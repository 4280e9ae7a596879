"""Operations as modules: the eight of the search space, and those of published cells.

See docs/method.md, 1.2 and 6.2. Where sources leave a choice open, conv1x7_7x1 and dil_conv3x3 take the form
of the authors' PyTorch code. A module maps a state to a `Side`, so that the addition that follows can fuse a
pool.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from pnas_fast.kernels import Backend, PoolKind, Side, State
from pnas_fast.network.layers import Convolution, FactorizedReduction, SeparableHalf, Shape

EXTRA_OPERATIONS = (
    "conv1x1",
    "conv3x3_bottleneck",
    "conv1x7_7x1_bottleneck",
    "max_pool2x2",
    "skip",
    "skip_linear",
)
"""Operations of published cells that no search tries.

conv1x1 is ReLU, 1×1, batch norm. A bottleneck is 1×1 to F / 4, the convolution, 1×1 to F, a ReLU before and
a batch norm after each. Skips are identities; strided, they are factorized reductions with a ReLU first
(DARTS) or, linear, without one (ENAS).
"""

NEVER_DROPPED = ("identity", "skip", "skip_linear")
"""Drop-path leaves these alone, even where they hold a convolution (docs/method.md, 3.3)."""


class Stack(nn.Module):
    """Layers in sequence, as one side of a block."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: State) -> Side[State]:
        """Apply the layers in order."""
        for layer in self.layers:
            x = layer(x)
        return Side(x)


class Identity(nn.Module):
    """The state itself; a strided ReLU, 1×1, batch norm where size or channels must change."""

    def __init__(self, backend: Backend[State], source: Shape, filters: int, stride: int) -> None:
        super().__init__()
        fits = stride == 1 and source.channels == filters
        self.project = None if fits else Convolution(backend, source, filters, stride=(stride, stride))

    def forward(self, x: State) -> Side[State]:
        """(N, C, H, W) to the block's shape."""
        return Side(x if self.project is None else self.project(x))


class Pool(nn.Module):
    """A 3×3 pool; 1×1 and batch norm after it where the channels must change, without a ReLU."""

    def __init__(
        self, backend: Backend[State], source: Shape, filters: int, stride: int, kind: PoolKind
    ) -> None:
        super().__init__()
        self.backend = backend
        self.kind = kind
        self.stride = stride
        pooled = source.strided(source.channels, stride)
        fits = source.channels == filters
        self.project = None if fits else Convolution(backend, pooled, filters, rectify=False)

    def forward(self, x: State) -> Side[State]:
        """(N, C, H, W) to the block's shape, the pool left to the addition where nothing follows it."""
        if self.project is None:
            return Side(x, self.kind, self.stride)
        return Side(self.project(self.backend.pool(x, self.kind, self.stride)))


class MaxPool2x2(nn.Module):
    """A 2×2 maximum, SAME-padded after the edge; 1×1 and batch norm after it where the channels must change.

    No backend has it: it is PyTorch's own on every one.
    """

    def __init__(self, backend: Backend[State], source: Shape, filters: int, stride: int) -> None:
        super().__init__()
        self.backend = backend
        self.stride = stride
        pooled = source.strided(source.channels, stride)
        fits = source.channels == filters
        self.project = None if fits else Convolution(backend, pooled, filters, rectify=False)

    def forward(self, x: State) -> Side[State]:
        """(N, C, H, W) to the block's shape."""
        values = self.backend.materialise(x)
        if self.stride == 1:
            values = F.pad(values, (0, 1, 0, 1), value=float("-inf"))
        pooled = F.max_pool2d(values, 2, self.stride, ceil_mode=self.stride == 2)
        return Side(pooled if self.project is None else self.project(pooled))


class Skip(nn.Module):
    """The state itself; a factorized reduction where strided, 1×1 where only the channels must change."""

    def __init__(
        self, backend: Backend[State], source: Shape, filters: int, stride: int, *, rectify: bool
    ) -> None:
        super().__init__()
        self.project: FactorizedReduction | Convolution | None = None
        if stride == 2:
            self.project = FactorizedReduction(backend, source, filters, rectify=rectify)
        elif source.channels != filters:
            self.project = Convolution(backend, source, filters)

    def forward(self, x: State) -> Side[State]:
        """(N, C, H, W) to the block's shape."""
        return Side(x if self.project is None else self.project(x))


def _separable(backend: Backend[State], source: Shape, filters: int, stride: int, kernel: int) -> Stack:
    first = SeparableHalf(backend, source, filters, kernel=kernel, stride=stride)
    return Stack(first, SeparableHalf(backend, first.shape, filters, kernel=kernel))


def _row_column(backend: Backend[State], source: Shape, filters: int, stride: int) -> Stack:
    row = Convolution(backend, source, source.channels, kernel=(1, 7), stride=(1, stride), normalise=False)
    column = Convolution(backend, row.shape, filters, kernel=(7, 1), stride=(stride, 1), rectify=False)
    return Stack(row, column)


def _bottleneck(
    backend: Backend[State], source: Shape, filters: int, stride: int, kernels: tuple[tuple[int, int], ...]
) -> Stack:
    narrow = filters // 4
    layers = [Convolution(backend, source, narrow)] if narrow else []
    for height, width in kernels:
        # The stride along an axis belongs to the kernel that reaches along it.
        strides = (stride if height > 1 else 1, stride if width > 1 else 1)
        before = layers[-1].shape if layers else source
        layers.append(Convolution(backend, before, narrow or filters, kernel=(height, width), stride=strides))
    if narrow:
        layers.append(Convolution(backend, layers[-1].shape, filters))
    return Stack(*layers)


def build_operation(
    name: str, backend: Backend[State], source: Shape, filters: int, stride: int
) -> nn.Module:
    """The module of an operation.

    Args:
        name: one of `pnas_fast.space.OPERATIONS` or `EXTRA_OPERATIONS`.
        backend: does the arithmetic.
        source: shape of the state it reads.
        filters: channels it must give.
        stride: 2 where a stride-2 cell reads a state from outside, else 1.
    """
    match name:
        case "sep3x3" | "sep5x5" | "sep7x7":
            return _separable(backend, source, filters, stride, kernel=int(name[3]))
        case "conv1x7_7x1":
            return _row_column(backend, source, filters, stride)
        case "identity":
            return Identity(backend, source, filters, stride)
        case "avg_pool3x3":
            return Pool(backend, source, filters, stride, "avg")
        case "max_pool3x3":
            return Pool(backend, source, filters, stride, "max")
        case "dil_conv3x3":
            return Stack(SeparableHalf(backend, source, filters, kernel=3, stride=stride, dilation=2))
        case "conv1x1":
            return Stack(Convolution(backend, source, filters, stride=(stride, stride)))
        case "conv3x3_bottleneck":
            return _bottleneck(backend, source, filters, stride, ((3, 3),))
        case "conv1x7_7x1_bottleneck":
            return _bottleneck(backend, source, filters, stride, ((1, 7), (7, 1)))
        case "max_pool2x2":
            return MaxPool2x2(backend, source, filters, stride)
        case "skip" | "skip_linear":
            return Skip(backend, source, filters, stride, rectify=name == "skip")
    raise ValueError(f"unknown operation {name!r}")
