"""What `bench/lease.py` runs: every operation at one size, on the card and in eager fp64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pnas_fast.kernels import Backend, CellOutput, Side, get_backend
from pnas_fast.kernels.activation import Activation
from pnas_fast.kernels.fused import GroupedBackend

DEVICE = "cuda"

FUSED = "triton"
"""The backend that is checked and timed."""

LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest relative error, ‖got − expected‖ / ‖expected‖."""

STAGES = ((24, 32), (48, 16), (96, 8))
"""Filters and map size of the cells of a child."""


class Case(NamedTuple):
    """An operation at one size.

    Attributes:
        name: of it.
        channels: of its sources.
        size: of their maps.
        sources: how many it reads.
        weights: shapes.
        norms: filters of each.
        run: from a backend, sources, weights and norms to a state.
    """

    name: str
    channels: int
    size: int
    sources: int
    weights: tuple[tuple[int, ...], ...]
    norms: tuple[int, ...]
    run: Callable[[Backend[Any], list[Tensor], list[Tensor], list[nn.BatchNorm2d]], Any]

    def __str__(self) -> str:
        return f"{self.name} {self.channels}@{self.size}"


def separable(channels: int, size: int, kernel: int, stride: int, dilation: int = 1) -> Case:
    """A separable half from and to the same channels."""
    weights = ((channels, 1, kernel, kernel), (channels, channels, 1, 1))
    name = (
        f"separable {kernel}×{kernel}" + (" dilated" if dilation > 1 else "") + (" /2" if stride > 1 else "")
    )

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norms: list[nn.BatchNorm2d]) -> Any:
        return backend.separable(x[0], w[0], w[1], *norms, stride=stride, dilation=dilation)

    return Case(name, channels, size, 1, weights, (channels,), run)


def dense(channels: int, filters: int, size: int, kernel: tuple[int, int], stride: tuple[int, int]) -> Case:
    """A dense convolution with a norm."""

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norms: list[nn.BatchNorm2d]) -> Any:
        return backend.convolution(x[0], w[0], *norms, stride=stride)

    weights = ((filters, channels, *kernel),)
    name = f"dense {kernel[0]}×{kernel[1]}" + (" /2" if max(stride) > 1 else "")
    return Case(name, channels, size, 1, weights, (filters,), run)


def factorized(channels: int, filters: int, size: int) -> Case:
    """A factorized reduction."""
    half = filters // 2, filters - filters // 2

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norms: list[nn.BatchNorm2d]) -> Any:
        return backend.factorized_reduction(x[0], w[0], w[1], *norms)

    weights = tuple((part, channels, 1, 1) for part in half)
    return Case("factorized", channels, size, 1, weights, (filters,), run)


def add(channels: int, size: int, left: Any, right: Any) -> Case:
    """A block's sum."""

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norms: list[nn.BatchNorm2d]) -> Any:
        output = CellOutput(1)
        return backend.concatenate([backend.add(Side(x[0], left), Side(x[1], right), output, 0)], output)

    return Case(f"add {left or 'as is'} + {right or 'as is'}", channels, size, 2, (), (), run)


def branches(channels: int, size: int) -> Case:
    """Two alike branches of a cell, which go in the same launches: separable, added to a pool."""

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norms: list[nn.BatchNorm2d]) -> Any:
        output, blocks = CellOutput(2), []
        for i in range(2):
            half = backend.separable(x[i], w[2 * i], w[2 * i + 1], norms[i])
            blocks.append(backend.add(Side(half), Side(x[i], "max"), output, i))
        return backend.concatenate(blocks, output)

    weights = ((channels, 1, 3, 3), (channels, channels, 1, 1)) * 2
    return Case("two branches", channels, size, 2, weights, (channels, channels), run)


def cases() -> list[Case]:
    """Every operation at every stage of a child."""
    found = []
    for f, size in STAGES:
        found += [separable(f, size, k, s) for k in (3, 5, 7) for s in (1, 2)]
        found += [separable(f, size, 3, 1, 2), dense(5 * f, f, size, (1, 1), (1, 1))]
        found += [dense(f, f, size, (1, 7), (1, 1)), dense(f, f, size, (7, 1), (1, 1))]
        found += [dense(f, f, size, (1, 1), (2, 2)), factorized(5 * f, f, size)]
        found += [add(f, size, None, None), add(f, size, "max", None), add(f, size, "avg", "max")]
        found += [branches(f, size)]
    return found


def small_cases() -> list[Case]:
    """One of each kind, on maps of odd size: for a tool under which everything is slow."""
    found = [separable(24, 9, 5, 2), dense(40, 24, 9, (1, 1), (1, 1)), dense(24, 24, 9, (1, 7), (1, 1))]
    return [*found, factorized(40, 24, 9), add(24, 9, "avg", "max"), branches(24, 9)]


def arranged(weight: Tensor) -> Tensor:
    """A depthwise weight as a network for these kernels has it: (C, 1, k, k) in the order (k, k, 1, C)."""
    if weight.shape[1] > 1 or weight.shape[2] == 1:
        return weight
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


class Problem:
    """A case's tensors, and one backend's forward and backward on them."""

    def __init__(self, case: Case, backend: Backend[Any], dtype: torch.dtype, batch: int) -> None:
        self.case, self.backend = case, backend
        shape = (batch, case.channels, case.size, case.size)
        self.sources = [
            torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=torch.channels_last)
            for _ in range(case.sources)
        ]
        self.weights = [arranged(torch.randn(weight, device=DEVICE)) for weight in case.weights]
        self.norms = [nn.BatchNorm2d(filters, device=DEVICE) for filters in case.norms]

    def cast(self, backend: Backend[Any], dtype: torch.dtype, weights: torch.dtype) -> Problem:
        """The same problem for another backend."""
        other = copy.copy(self)
        other.backend = backend
        other.sources = [source.detach().to(dtype, copy=True) for source in self.sources]
        other.weights = [weight.detach().to(weights).contiguous().clone() for weight in self.weights]
        other.norms = [copy.deepcopy(norm).to(weights) for norm in self.norms]
        return other

    def leaves(self) -> list[Tensor]:
        """What gradients are taken of."""
        return [*self.sources, *self.weights, *(x for norm in self.norms for x in norm.parameters())]

    def forward(self) -> Any:
        """The operation's state, computed: a fused convolution's norm is left to whoever reads it."""
        for leaf in self.leaves():
            leaf.requires_grad_()
        state = self.case.run(self.backend, self.sources, self.weights, self.norms)
        if isinstance(self.backend, GroupedBackend):
            self.backend.compute([state])
        return state

    def both(self, upstream: Tensor) -> None:
        """Forward, and backward from an upstream gradient of what the forward left."""
        state = self.forward()
        outputs = [state]
        if isinstance(state, Activation):
            outputs = [state.z] if state.affine is None else [state.z, state.affine]
        gradients = [upstream.to(state.dtype), *(torch.ones_like(affine) for affine in outputs[1:])]
        torch.autograd.grad(outputs, self.leaves(), gradients)

    def results(self, upstream: Tensor | None) -> tuple[Tensor, ...]:
        """The result as an ordinary tensor, and from an upstream gradient every gradient."""
        out = self.backend.materialise(self.forward())
        if upstream is None:
            return (out.detach(),)
        return out.detach(), *torch.autograd.grad(out, self.leaves(), upstream.to(out.dtype))


class Poisoned:
    """While it lasts, new floating-point tensors are full of NaN."""

    _PLACES = ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty"))

    def __enter__(self) -> None:
        self._kept = [getattr(place, name) for place, name in self._PLACES]

        def poison(make: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Tensor:
                tensor: Tensor = make(*args, **kwargs)
                return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

            return call

        for (place, name), made in zip(self._PLACES, self._kept, strict=True):
            setattr(place, name, poison(made))

    def __exit__(self, *_: object) -> None:
        for (place, name), made in zip(self._PLACES, self._kept, strict=True):
            setattr(place, name, made)


def check(case: Case, dtype: torch.dtype, runs: int) -> float:
    """The largest relative error of results and gradients; infinite where bits differ between runs."""
    fused = Problem(case, get_backend(FUSED), dtype, batch=5)
    oracle = fused.cast(get_backend("eager"), torch.float64, torch.float64)
    upstream = torch.randn_like(oracle.results(None)[0])
    expected = oracle.results(upstream)
    with Poisoned():
        first = fused.results(upstream)
        again = [fused.results(upstream) for _ in range(runs - 1)]
    if any(not torch.equal(a, b) for other in again for a, b in zip(first, other, strict=True)):
        return float("inf")
    pairs = zip(first, expected, strict=True)
    errors = [float((got.double() - right).norm() / right.norm().clamp(min=1e-30)) for got, right in pairs]
    return max(errors) if all(error == error for error in errors) else float("nan")
