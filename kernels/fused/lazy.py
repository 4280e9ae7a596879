"""Operations that wait, so that those which are alike can be done in one launch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pnas_fast.kernels.activation import Activation, GradientSink
from pnas_fast.kernels.backend import Side
from pnas_fast.kernels.fused.batched_functions import Adds, AddsCall, Convolutions, ConvolutionsCall
from pnas_fast.kernels.fused.functions import Room, SideCall
from pnas_fast.kernels.fused.primitives import Convolution, Primitives

MOST = 2
"""Operations of one launch. Each number of them is machine code of its own."""

Fused = Tensor | Activation


class Deferred(Activation):
    """An activation whose operation waits: until that has run it has neither ``z`` nor ``affine``."""

    __slots__ = ("_device", "_dtype", "_shape", "operation")

    def __init__(self, shape: Sequence[int], like: Fused) -> None:
        self._shape, self._dtype, self._device = torch.Size(shape), like.dtype, like.device
        self.operation: Operation | None = None
        self.sink = GradientSink()

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return self._shape

    @property
    def device(self) -> torch.device:
        """Where its values will be."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Of its values."""
        return self._dtype

    def put(self, z: Tensor, affine: Tensor | None) -> None:
        """Have what its operation has made."""
        self.z, self.affine, self.operation = z, affine, None


class Convolve(NamedTuple):
    """A convolution that waits; see `pnas_fast.kernels.fused.Primitives.convolutions`."""

    result: Deferred
    source: Fused
    convolution: Convolution
    norm: nn.BatchNorm2d | None
    weights: tuple[Tensor, ...]

    def sources(self) -> tuple[Fused, ...]:
        """What it reads."""
        return (self.source,)

    def likeness(self) -> Hashable:
        """Equal for convolutions that one launch can do; the source is there."""
        norm = self.norm
        settings = None if norm is None else (norm.training, norm.momentum, norm.eps)
        return self.convolution, settings, tuple(map(_layout, self.weights)), _layout_of(self.source)


class Add(NamedTuple):
    """A sum that waits; see `pnas_fast.kernels.fused.Primitives.adds`."""

    result: Deferred
    sides: tuple[Side[Fused], ...]
    out: Tensor

    def sources(self) -> tuple[Fused, ...]:
        """What it reads."""
        return tuple(side.state for side in self.sides)

    def likeness(self) -> Hashable:
        """Equal for sums that one launch can do; the sources are there."""
        sides = [(side.pool, side.stride, _layout(side.keep), _layout_of(side.state)) for side in self.sides]
        return _layout(self.out), *sides


Operation = Convolve | Add


def compute(kernels: Primitives, states: Iterable[Fused]) -> None:
    """Run what states wait for: level by level, what is alike in a level together."""
    waiting = _waiting_for(states)
    while waiting:
        ready = [operation for operation in waiting if not any(map(_waits, operation.sources()))]
        for group in groups(ready):
            _run(kernels, group)
        waiting = [operation for operation in waiting if _waits(operation.result)]


def groups(ready: Iterable[Operation]) -> list[list[Operation]]:
    """What one launch each can do: operations that are alike and read different sources."""
    found: list[list[Operation]] = []
    latest: dict[Hashable, list[Operation]] = {}
    for operation in ready:
        likeness = operation.likeness()
        group = latest.get(likeness)
        if group is None or len(group) == MOST or any(_share(operation, other) for other in group):
            group = latest[likeness] = []
            found.append(group)
        group.append(operation)
    return found


def _share(one: Operation, other: Operation) -> bool:
    """Whether both read a source in the same place: gradients are added to it in one launch."""
    return any(own is its for own, its in zip(one.sources(), other.sources(), strict=True))


def _waits(state: Fused) -> bool:
    return isinstance(state, Deferred) and state.operation is not None


def _waiting_for(states: Iterable[Fused]) -> list[Operation]:
    """What must run for these states, each operation after those whose results it reads."""
    found: dict[int, Operation] = {}
    _visit(states, found)
    return list(found.values())


def _visit(states: Iterable[Fused], found: dict[int, Operation]) -> None:
    # No function within another: one that calls itself is garbage in a circle, and all that it had found
    # would stay until the collector comes, with the step's activations and its graph.
    for state in states:
        if isinstance(state, Deferred) and state.operation is not None and id(state) not in found:
            _visit(state.operation.sources(), found)
            found[id(state)] = state.operation


def _run(kernels: Primitives, group: Sequence[Operation]) -> None:
    convolutions = [operation for operation in group if isinstance(operation, Convolve)]
    if convolutions:
        _run_convolutions(kernels, convolutions)
    else:
        _run_adds(kernels, [operation for operation in group if isinstance(operation, Add)])


def _run_convolutions(kernels: Primitives, group: Sequence[Convolve]) -> None:
    call = ConvolutionsCall(kernels, group[0].convolution, [], [], [])
    tensors: list[Tensor | None] = []
    for result, source, _, norm, weights in group:
        z, affine, sink = _read(source)
        tensors += [z, affine, *((None, None) if norm is None else (norm.weight, norm.bias)), *weights]
        call.norms.append(norm)
        call.source_sinks.append(sink)
        call.sinks.append(result.sink)
    found = Convolutions.apply(call, *tensors)  # type: ignore[no-untyped-call]
    for place, operation in enumerate(group):
        operation.result.put(*found[2 * place : 2 * place + 2])


def _run_adds(kernels: Primitives, group: Sequence[Add]) -> None:
    call = AddsCall(kernels, [], [])
    tensors: list[Tensor | None] = []
    for result, sides, _ in group:
        read = [_read(side.state) for side in sides]
        tensors += [tensor for z, affine, _ in read for tensor in (z, affine)]
        call.sides.append(
            [
                SideCall(side.pool, side.stride, side.keep, sink)
                for side, (_, _, sink) in zip(sides, read, strict=True)
            ]
        )
        call.sinks.append(result.sink)
    rooms = [Room(operation.out) for operation in group]
    found = Adds.apply(call, rooms, *tensors)  # type: ignore[no-untyped-call]
    for operation, z in zip(group, found, strict=True):
        operation.result.put(z, None)


def _read(state: Fused) -> tuple[Tensor, Tensor | None, GradientSink | None]:
    return (state.z, state.affine, state.sink) if isinstance(state, Activation) else (state, None, None)


def _layout_of(state: Fused) -> Hashable:
    z, affine, _ = _read(state)
    return _layout(z), affine is None


def _layout(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
