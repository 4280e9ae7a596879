"""What operations refuse, in the same words on every backend.

Kernels are given addresses and believe them, so shapes, types, devices and strides are looked at here, once,
on the way in. A step that is replayed, by a recording or a CUDA graph, was looked at when it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pnas_fast.kernels.backend import CellOutput, Side
from pnas_fast.kernels.layout import is_dense, is_nhwc
from pnas_fast.kernels.refusals import HALVES, check_strided, check_tensor, is_whole, lies, refuse, words

STRIDES = (1, 2)
POOLS = ("avg", "max")
DEPTHWISE = frozenset({(3, 1), (5, 1), (7, 1), (3, 2)})
"""Width and dilation of the search space's depthwise convolutions."""

TAPS = 49
"""Most of a dense convolution that kernels are written for."""

LARGEST = 2**31 - 1
"""Elements of an activation whose offsets are 32-bit numbers."""


@dataclass(frozen=True)
class Limits:
    """What the kernels of a backend can read.

    Attributes:
        name: of the backend.
        activations: types of what flows between operations.
        weights: types of weights; a batch norm's tensors are of one of these too.
        states: the backend's own forms of an activation, these very types besides tensors.
        device: the type of the device that everything must be on, None for any.
        compiled: whether kernels are given addresses: activations lie in NHWC memory then, and weights in
            dense memory with their taps in a row.
        elements: most of an activation.
        taps: most of a dense convolution.
        depthwise: width and dilation of the depthwise convolutions there are; None for any.
    """

    name: str
    activations: tuple[torch.dtype, ...]
    weights: tuple[torch.dtype, ...]
    states: tuple[type, ...] = ()
    device: Callable[[], str | None] = lambda: None
    compiled: bool = False
    elements: int | None = None
    taps: int | None = None
    depthwise: frozenset[tuple[int, int]] | None = None


class Arguments:
    """The arguments of each operation of a `Backend`, looked at; every method raises BackendError."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._who = f"backend {limits.name}"

    def state(self, x: Any) -> None:
        """What an operation reads: (N, C, H, W)."""
        limits = self._limits
        known = isinstance(x, Tensor) or type(x) in limits.states
        if not known:
            names = " ".join(state.__name__ for state in (Tensor, *limits.states))
            self._refuse("the activation", f"a {type(x).__name__}", names)
        shape, dtype, device = x.shape, x.dtype, limits.device()
        if len(shape) != 4 or 0 in shape:
            self._refuse("the activation's shape", tuple(shape), "(N, C, H, W), each 1 or more")
        if dtype not in limits.activations:
            self._refuse("the activation's type", dtype, words(limits.activations))
        if device is not None and x.device.type != device:
            self._refuse("the activation's device", x.device, device)
        if limits.elements is not None and prod(shape) > limits.elements:
            self._refuse(
                "the activation's size", f"{prod(shape):,} elements", f"up to {limits.elements:,} elements"
            )
        if isinstance(x, Tensor):
            check_strided(self._who, "the activation", x)
            if limits.compiled and not is_nhwc(x):
                self._refuse(
                    "the activation's memory",
                    lies(x),
                    "NHWC memory (torch.channels_last), or channels of it",
                )

    def convolution(
        self, x: Any, weight: Tensor, norm: nn.BatchNorm2d | None, stride: tuple[int, int]
    ) -> None:
        """See `Backend.convolution`."""
        self.state(x)
        self._strides(stride)
        allowed = f"(F, {x.shape[1]}, kh, kw), each 1 or more"
        self._weight("the weight", weight, x, allowed)
        shape, most = tuple(weight.shape), self._limits.taps
        if shape[1] != x.shape[1] or 0 in shape:
            self._refuse("the weight's shape", shape, allowed)
        if most is not None and shape[2] * shape[3] > most:
            self._refuse("the weight's shape", shape, f"a kernel of up to {most} taps")
        self._result(x, weight.shape[0], stride, norm, optional=True)

    def separable(
        self,
        x: Any,
        depthwise: Tensor,
        pointwise: Tensor,
        norm: nn.BatchNorm2d,
        stride: int,
        dilation: int,
    ) -> None:
        """See `Backend.separable`."""
        self.state(x)
        strides = stride, stride
        self._strides(strides)
        channels = x.shape[1]
        self._weight("the depthwise weight", depthwise, x, f"({channels}, 1, k, k)")
        self._weight("the pointwise weight", pointwise, x, f"(F, {channels}, 1, 1)")
        c, one, height, width = depthwise.shape
        if (c, one) != (channels, 1) or height != width or width < 1:
            self._refuse("the depthwise weight's shape", tuple(depthwise.shape), f"({channels}, 1, k, k)")
        if not is_whole(dilation, 1):
            self._refuse("the dilation", dilation, "1 or more")
        allowed = self._limits.depthwise
        if allowed is not None and (width, dilation) not in allowed:
            kernels = ", ".join(f"{k}×{k} with dilation {d}" for k, d in sorted(allowed))
            self._refuse("the depthwise kernel", f"{width}×{width} with dilation {dilation}", kernels)
        if pointwise.shape[0] < 1 or tuple(pointwise.shape[1:]) != (channels, 1, 1):
            self._refuse(
                "the pointwise weight's shape", tuple(pointwise.shape), f"(F, {channels}, 1, 1), F 1 or more"
            )
        self._result(x, pointwise.shape[0], strides, norm)

    def factorized_reduction(self, x: Any, even: Tensor, odd: Tensor, norm: nn.BatchNorm2d) -> None:
        """See `Backend.factorized_reduction`."""
        self.state(x)
        channels = x.shape[1]
        for name, weight in (("even", even), ("odd", odd)):
            self._weight(f"the {name} weight", weight, x, f"(F, {channels}, 1, 1)")
            if tuple(weight.shape[1:]) != (channels, 1, 1):
                self._refuse(f"the {name} weight's shape", tuple(weight.shape), f"(F, {channels}, 1, 1)")
        filters = even.shape[0] + odd.shape[0]
        if filters < 1 or even.shape[0] != filters // 2:
            found = f"{even.shape[0]} even and {odd.shape[0]} odd ones"
            self._refuse("the number of filters", found, "F // 2 even and F - F // 2 odd ones, F 1 or more")
        self._result(x, filters, (2, 2), norm)

    def pool(self, x: Any, kind: str, stride: int) -> None:
        """See `Backend.pool`."""
        self.state(x)
        self._pool("the", kind, stride)

    def add(self, left: Side[Any], right: Side[Any] | None, output: CellOutput, block: int) -> None:
        """See `Backend.add`."""
        shape = self._side("left", left)
        if right is not None:
            other = self._side("right", right)
            if other != shape:
                self._refuse("the right side's result", _shown(other), f"as the left's, {_shown(shape)}")
        if not is_whole(output.blocks, 1):
            self._refuse("the number of blocks", output.blocks, "1 or more")
        if not is_whole(block, 0, output.blocks - 1) or block in output.written:
            free = [place for place in range(min(output.blocks, 64)) if place not in output.written]
            self._refuse("the block's place", block, f"a free one, of {free}")
        for written in output.written.values():
            before = tuple(written.shape), written.dtype, written.device
            if before != shape:
                self._refuse("the block's result", _shown(shape), f"as an earlier one's, {_shown(before)}")
            break
        elements, blocks = self._limits.elements, output.blocks
        if elements is not None and prod(shape[0]) * blocks > elements:
            found = f"{prod(shape[0]) * blocks:,} elements"
            self._refuse("the size of all blocks", found, f"up to {elements:,} elements")

    def concatenate(self, states: Sequence[Any], output: CellOutput) -> None:
        """See `Backend.concatenate`."""
        written = output.written
        places = [next((p for p, own in written.items() if own is state), None) for state in states]
        if not states or places != list(range(output.blocks)):
            self._refuse(
                "the list of states", f"that of places {places}", f"that of places 0 to {output.blocks - 1}"
            )

    def _side(self, name: str, side: Side[Any]) -> tuple[tuple[int, ...], torch.dtype, torch.device]:
        """Shape, type and device of a side's result."""
        x, pool, stride, keep = side
        self.state(x)
        if pool is not None:
            self._pool(f"the {name} side's", pool, stride)
        elif not is_whole(stride, 1, 1):
            self._refuse(f"the {name} side's stride", stride, "1 where there is no pool")
        if keep is not None:
            self._keep(f"the {name} side's keep", keep, x)
        n, c, h, w = x.shape
        return (n, c, -(-h // stride), -(-w // stride)), x.dtype, x.device

    def _keep(self, name: str, keep: Any, x: Any) -> None:
        check_tensor(self._who, name, keep, (x.dtype,), x.device)
        if tuple(keep.shape) != (x.shape[0], 1, 1, 1):
            self._refuse(f"{name}'s shape", tuple(keep.shape), f"({x.shape[0]}, 1, 1, 1)")
        if not keep.is_contiguous():
            self._refuse(f"{name}'s memory", lies(keep), "contiguous memory")
        if keep.requires_grad and torch.is_grad_enabled():
            self._refuse(name, "a tensor that requires a gradient", "a constant")

    def _pool(self, name: str, kind: Any, stride: Any) -> None:
        if kind not in POOLS:
            self._refuse(f"{name} pool", repr(kind), " ".join(POOLS))
        if not is_whole(stride, *STRIDES):
            self._refuse(f"{name} stride", stride, "1 or 2")

    def _strides(self, stride: Any) -> None:
        pair = isinstance(stride, tuple) and len(stride) == 2
        if not pair or not all(is_whole(own, *STRIDES) for own in stride):
            self._refuse("the stride", stride, "1 or 2 along each axis")

    def _weight(self, name: str, weight: Any, x: Any, shape: str) -> None:
        check_tensor(self._who, name, weight, self._limits.weights, x.device)
        if weight.ndim != 4:
            self._refuse(f"{name}'s shape", tuple(weight.shape), shape)
        if not self._limits.compiled:
            return
        _, _, height, width = weight.shape
        in_a_row = height == 1 or width == 1 or weight.stride(2) == width * weight.stride(3)
        if not in_a_row or not is_dense(weight):
            self._refuse(f"{name}'s memory", lies(weight), "contiguous or channels_last memory")

    def _result(
        self,
        x: Any,
        filters: int,
        stride: tuple[int, int],
        norm: nn.BatchNorm2d | None,
        *,
        optional: bool = False,
    ) -> None:
        """What a convolution writes, and the batch norm of it."""
        n, _, h, w = x.shape
        pixels = n * -(-h // stride[0]) * -(-w // stride[1])
        elements = self._limits.elements
        if elements is not None and pixels * filters > elements:
            self._refuse(
                "the result's size", f"{pixels * filters:,} elements", f"up to {elements:,} elements"
            )
        if norm is None and optional:
            return
        if not isinstance(norm, nn.BatchNorm2d):
            self._refuse("the batch norm", f"a {type(norm).__name__}", "torch.nn.BatchNorm2d")
        own = norm.weight, norm.bias, norm.running_mean, norm.running_var
        if any(tensor is None for tensor in own) or norm.num_batches_tracked is None:
            self._refuse("the batch norm", "one without affine or running statistics", "one with both")
        allowed = {x.dtype, torch.float32} if x.dtype in HALVES else {x.dtype}
        dtypes = [dtype for dtype in self._limits.weights if dtype in allowed]
        for name, tensor in zip(("weight", "bias", "running mean", "running variance"), own, strict=True):
            check_tensor(self._who, f"the batch norm's {name}", tensor, dtypes, x.device)
            if tuple(tensor.shape) != (filters,):  # type: ignore[union-attr]
                self._refuse(f"the batch norm's {name}'s shape", tuple(tensor.shape), f"({filters},)")  # type: ignore[union-attr]
            if not tensor.is_contiguous():  # type: ignore[union-attr]
                self._refuse(f"the batch norm's {name}'s memory", lies(tensor), "contiguous memory")  # type: ignore[arg-type]
        count = norm.num_batches_tracked
        check_tensor(self._who, "the batch norm's count of batches", count, (torch.int64,), x.device)
        if count.numel() != 1:
            self._refuse("the batch norm's count of batches", tuple(count.shape), "one number")
        if norm.training and pixels == 1:
            self._refuse("the batch norm", "trained on 1 value per channel", "2 or more")

    def _refuse(self, thing: str, found: object, allowed: object) -> NoReturn:
        refuse(self._who, thing, found, allowed)


def _shown(result: tuple[tuple[int, ...], torch.dtype, torch.device]) -> str:
    shape, dtype, device = result
    return f"{shape} {dtype} on {device}"
