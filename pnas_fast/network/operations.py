"""The eight operations of the search space as modules (SPEC 1.2).

Where sources leave a choice open, conv1x7_7x1 and dil_conv3x3 take the form of the authors' PyTorch
code. A module maps a state to a `Side`, so that the addition that follows can fuse a pool.
"""

from __future__ import annotations

from torch import nn

from pnas_fast.kernels import Backend, PoolKind, Side, State
from pnas_fast.network.layers import Convolution, SeparableHalf, Shape


class Stack(nn.Module):
    """Layers one after the other."""

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


def _separable(backend: Backend[State], source: Shape, filters: int, stride: int, kernel: int) -> Stack:
    first = SeparableHalf(backend, source, filters, kernel=kernel, stride=stride)
    return Stack(first, SeparableHalf(backend, first.shape, filters, kernel=kernel))


def _row_column(backend: Backend[State], source: Shape, filters: int, stride: int) -> Stack:
    row = Convolution(backend, source, source.channels, kernel=(1, 7), stride=(1, stride), normalise=False)
    column = Convolution(backend, row.shape, filters, kernel=(7, 1), stride=(stride, 1), rectify=False)
    return Stack(row, column)


def build_operation(
    name: str, backend: Backend[State], source: Shape, filters: int, stride: int
) -> nn.Module:
    """The module of an operation.

    Args:
        name: one of `pnas_fast.space.OPERATIONS`.
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
    raise ValueError(f"unknown operation {name!r}")
