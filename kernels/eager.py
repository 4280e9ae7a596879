"""The eager backend: plain PyTorch. The oracle every fused backend is tested against, and the fallback."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.kernels.arguments import Arguments, Limits
from pnas_fast.kernels.backend import CellOutput, PoolKind, Side
from pnas_fast.kernels.refusals import FLOATS


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Pixels of SAME padding (before, after) along one axis: the odd one comes after."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _conv_same(x: Tensor, weight: Tensor, stride: tuple[int, int], dilation: int, groups: int) -> Tensor:
    top, bottom = same_padding(x.shape[2], weight.shape[2], stride[0], dilation)
    left, right = same_padding(x.shape[3], weight.shape[3], stride[1], dilation)
    padding = (top, left)
    if (top, left) != (bottom, right):
        x = F.pad(x, (left, right, top, bottom))
        padding = (0, 0)
    return F.conv2d(x, weight.to(x.dtype), None, stride, padding, dilation, groups)


_ARGUMENTS = Arguments(Limits("eager", activations=FLOATS, weights=FLOATS))


class EagerBackend:
    """The fused operations as compositions of PyTorch's own; see `Backend` for their mathematics."""

    name = "eager"
    dtypes = FLOATS
    branches = True
    records = False
    warms = False

    def arrange(self, depthwise: Tensor) -> Tensor:
        """See `Backend.arrange`."""
        return depthwise

    def convolution(
        self,
        x: Tensor,
        weight: Tensor,
        norm: nn.BatchNorm2d | None,
        *,
        stride: tuple[int, int] = (1, 1),
        rectify: bool = True,
    ) -> Tensor:
        """See `Backend.convolution`."""
        _ARGUMENTS.convolution(x, weight, norm, stride)
        z = _conv_same(F.relu(x) if rectify else x, weight, stride, dilation=1, groups=1)
        return z if norm is None else _normalise(z, norm)

    def separable(
        self,
        x: Tensor,
        depthwise: Tensor,
        pointwise: Tensor,
        norm: nn.BatchNorm2d,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> Tensor:
        """See `Backend.separable`."""
        _ARGUMENTS.separable(x, depthwise, pointwise, norm, stride, dilation)
        z = _conv_same(F.relu(x), depthwise, (stride, stride), dilation, groups=x.shape[1])
        return _normalise(F.conv2d(z, pointwise.to(z.dtype)), norm)

    def factorized_reduction(
        self, x: Tensor, even: Tensor, odd: Tensor, norm: nn.BatchNorm2d, *, rectify: bool = True
    ) -> Tensor:
        """See `Backend.factorized_reduction`."""
        _ARGUMENTS.factorized_reduction(x, even, odd, norm)
        rectified = F.relu(x) if rectify else x
        shifted = F.pad(rectified, (-1, 1, -1, 1))
        paths = [F.conv2d(r, w.to(x.dtype), stride=2) for r, w in ((rectified, even), (shifted, odd))]
        return _normalise(torch.cat(paths, dim=1), norm)

    def pool(self, x: Tensor, kind: PoolKind, stride: int) -> Tensor:
        """See `Backend.pool`."""
        _ARGUMENTS.pool(x, kind, stride)
        return _pool(x, kind, stride)

    def add(self, left: Side[Tensor], right: Side[Tensor] | None, output: CellOutput, block: int) -> Tensor:
        """See `Backend.add`."""
        _ARGUMENTS.add(left, right, output, block)
        written = _read(left) if right is None else _read(left) + _read(right)
        output.written[block] = written
        return written

    def concatenate(self, states: list[Tensor], output: CellOutput) -> Tensor:
        """See `Backend.concatenate`."""
        _ARGUMENTS.concatenate(states, output)
        output.written.clear()
        return torch.cat(states, dim=1) if len(states) > 1 else states[0]

    def global_average(self, x: Tensor) -> Tensor:
        """See `Backend.global_average`."""
        _ARGUMENTS.state(x)
        return F.relu(x).mean(dim=(2, 3))

    def materialise(self, x: Tensor) -> Tensor:
        """See `Backend.materialise`."""
        _ARGUMENTS.state(x)
        return x


def _pool(x: Tensor, kind: PoolKind, stride: int) -> Tensor:
    padding = [same_padding(size, 3, stride)[0] for size in x.shape[2:]]
    # ceil_mode supplies the asymmetric padding: the last window is cut off at the edge.
    if kind == "max":
        return F.max_pool2d(x, 3, stride, padding, ceil_mode=True)
    if x.is_cuda:
        # PyTorch 2.11 gets the gradient wrong where a GPU's tensors are channels_last.
        x = x.contiguous(memory_format=torch.contiguous_format)
    return F.avg_pool2d(x, 3, stride, padding, ceil_mode=True, count_include_pad=False)


def _read(side: Side[Tensor]) -> Tensor:
    value = side.state if side.pool is None else _pool(side.state, side.pool, side.stride)
    return value if side.keep is None else value * side.keep


def _normalise(z: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    normalised: Tensor = norm(z)
    return normalised
