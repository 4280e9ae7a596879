"""Any backend's operations against the eager ones in fp64: results, gradients, batch norm's statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pnas_fast.kernels import Backend, get_backend

EAGER = get_backend("eager")
FORWARD, GRADIENT = 1e-5, 1e-4
"""Largest relative error, ‖got − expected‖ / ‖expected‖, in fp32."""

Operation = Callable[[Backend[Any], list[Tensor], list[Tensor], nn.BatchNorm2d | None], Any]
"""From a backend, activations, weights and a norm to a state."""


@dataclass
class Run:
    """What one backend made of an operation."""

    out: Tensor
    gradients: dict[str, Tensor | None]
    statistics: dict[str, Tensor] = field(default_factory=dict)


def activation(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def new_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


def relative_error(got: Tensor, expected: Tensor) -> float:
    """NaN if anything is: it must then fail every comparison."""
    difference = (got.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp(min=1e-30))


def run(
    backend: Backend[Any],
    operation: Operation,
    sources: list[Tensor],
    weights: list[Tensor],
    norm: nn.BatchNorm2d | None,
    upstream: Tensor | None = None,
) -> Run:
    """Forward, and backward from a random gradient, on copies of everything."""
    sources = [source.detach().clone().requires_grad_() for source in sources]
    weights = [weight.detach().clone().requires_grad_() for weight in weights]
    norm = copy.deepcopy(norm)
    out = backend.materialise(operation(backend, sources, weights, norm))
    if upstream is not None:
        out.backward(upstream.to(out.dtype))  # type: ignore[no-untyped-call]
    gradients = {f"source {index}": source.grad for index, source in enumerate(sources)}
    gradients |= {f"weight {index}": weight.grad for index, weight in enumerate(weights)}
    if norm is None:
        return Run(out.detach(), gradients)
    gradients |= {name: parameter.grad for name, parameter in norm.named_parameters()}
    return Run(out.detach(), gradients, dict(norm.named_buffers()))


def best_conditioned(runs: list[tuple[Tensor, Run]]) -> tuple[Tensor, Run]:
    """Of runs that differ in the gradient they were given, the one whose own gradients cancel least.

    A gradient of one number, say of a map with one positive pixel, is a sum of random terms. Where these
    cancel, what rounding does to each is a large share of what is left, however right the operation is.
    """
    sizes = [[float(g.norm()) for g in run.gradients.values() if g is not None] for _, run in runs]
    most = [max(column) for column in zip(*sizes, strict=True)]

    def least(row: list[float]) -> float:
        return min((size / top for size, top in zip(row, most, strict=True) if top > 0), default=1.0)

    return runs[max(range(len(runs)), key=lambda index: least(sizes[index]))]


def compare(
    backend: Backend[Any],
    operation: Operation,
    sources: list[Tensor],
    weights: list[Tensor],
    norm: nn.BatchNorm2d | None = None,
    *,
    forward: float = FORWARD,
    gradient: float = GRADIENT,
) -> None:
    """Assert that an operation's result, every gradient and new statistics are those of eager fp64."""
    shape = run(EAGER, operation, sources, weights, norm).out.shape
    doubles = [source.double() for source in sources], [weight.double() for weight in weights]
    exact = None if norm is None else norm.double()
    upstreams = [torch.randn(shape) for _ in range(3)]
    upstream, expected = best_conditioned(
        [(upstream, run(EAGER, operation, *doubles, exact, upstream)) for upstream in upstreams]
    )
    if norm is not None:
        norm.float()
    got = run(backend, operation, sources, weights, norm, upstream)
    assert got.out.shape == expected.out.shape
    assert relative_error(got.out, expected.out) <= forward
    for name, statistic in expected.statistics.items():
        assert relative_error(got.statistics[name], statistic) <= forward, name
    for name, wanted in expected.gradients.items():
        found = got.gradients[name]
        assert (found is None) == (wanted is None), name
        if found is not None and wanted is not None:
            assert relative_error(found, wanted) <= gradient, name
