"""Launching kernels: one call for running, counting and compiling ahead of time.

Every launcher describes a launch completely, so `recording` can collect what a training step launches
without running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pnas_fast.kernels.arguments import LARGEST
from pnas_fast.kernels.operation_cost import Cost, distinct, size
from pnas_fast.kernels.refusals import refuse
from pnas_fast.kernels.triton import library
from pnas_fast.kernels.triton.tickets import TICKETS, tickets

INTERPRETED = triton.knobs.runtime.interpret
"""Whether Triton's interpreter runs kernels, on the CPU (TRITON_INTERPRET=1)."""


class Tile(NamedTuple):
    """How a kernel is compiled and spread.

    Attributes:
        warps: of each program.
        registers: most for a thread; None lets the compiler choose.
        programs: for each multiprocessor.
    """

    warps: int
    registers: int | None
    programs: int


@dataclass(frozen=True)
class Pointer:
    """What a compiled kernel depends on of a tensor it is given."""

    dtype: torch.dtype
    aligned: bool


class Launch(NamedTuple):
    """One kernel launch: what `recording` collects.

    Attributes:
        kernel: the jitted function.
        grid: programs along each axis.
        arguments: by parameter name; tensors as `Pointer`s, since a gradient that somebody keeps is one
            that PyTorch copies; tuples of what the problems of a grouped launch have each.
        options: of the compiler.
        cost: bytes of what it reads and writes. Programs that read the same part of a tensor at the same
            time read it once, together.
        products: multiply-adds of matrix products.
        taps: multiply-adds of depthwise convolutions, which matrix units do not do.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, int]
    cost: Cost
    products: int
    taps: int


class _Recorder(NamedTuple):
    launches: list[Launch]
    multiprocessors: int
    capability: int


_recorders: list[_Recorder] = []


@contextmanager
def recording(multiprocessors: int = 132, capability: int = 90) -> Iterator[list[Launch]]:
    """Collect launches instead of running them; results stay unwritten.

    Args:
        multiprocessors: of the card that the launches are planned for.
        capability: its compute capability, 90 for 9.0.
    """
    _recorders.append(_Recorder([], multiprocessors, capability))
    try:
        yield _recorders[-1].launches
    finally:
        _recorders.pop()


def is_recording() -> bool:
    """Whether launches are collected."""
    return bool(_recorders)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    tile: Tile,
    *,
    reads: Sequence[Tensor | None],
    writes: Sequence[Tensor | None],
    scratch: Mapping[str, Tensor] = MappingProxyType({}),
    problems: Mapping[str, tuple[Any, ...] | None] = MappingProxyType({}),
    products: int = 0,
    taps: int = 0,
    counters: int = 0,
    **arguments: Any,
) -> None:
    """Run a kernel, or record it.

    Args:
        kernel: a jitted function.
        grid: programs along each axis.
        tile: how it is compiled.
        reads: activations and weights, an entry for each pass over one.
        writes: those it writes.
        scratch: arguments that it writes and reads again.
        problems: arguments of which each problem of a grouped launch has its own, None where none has.
        products: see `Launch`.
        taps: see `Launch`.
        counters: that it takes `tickets` from, as an argument of that name.
        arguments: the others.

    Raises:
        BackendError: there are not so many counters, or a tensor reaches further than offsets do.
    """
    arguments |= scratch
    arguments |= problems
    _check(library.name_of(kernel), counters, arguments)
    if counters:
        device = next(tensor.device for tensor in writes if tensor is not None)
        # No more than were asked for: should a kernel take others, tests see it.
        arguments["tickets"] = tickets(device)[:counters]
    options = {"num_warps": tile.warps, "num_stages": 1}
    if tile.registers is not None:
        options["maxnreg"] = tile.registers
    if _recorders:
        others = size(writes) + 2 * size(scratch.values())
        cost = Cost(1, size(reads) + others, size(distinct(reads)) + others)
        described = {name: _described(value) for name, value in arguments.items()}
        _recorders[-1].launches.append(Launch(kernel, grid, described, options, cost, products, taps))
        return
    with _on_device_of(writes):
        library.call(kernel, grid, arguments, frozenset(problems), options)


def _check(name: str, counters: int, arguments: Mapping[str, Any]) -> None:
    """Refuse what would overflow: kernels have 32-bit offsets, and one buffer of counters."""
    if counters > TICKETS:
        refuse("backend triton", f"{name}: its number of tickets", f"{counters:,}", f"up to {TICKETS:,}")
    for key, value in arguments.items():
        for tensor in value if isinstance(value, tuple) else (value,):
            if isinstance(tensor, Tensor) and (reach := reach_of(tensor)) > LARGEST:
                thing = f"{name}: the reach of {key} in memory"
                refuse("backend triton", thing, f"{reach:,} elements", f"up to {LARGEST:,} elements")


def reach_of(tensor: Tensor) -> int:
    """Elements from a tensor's first to its last, as it lies in memory: of a slice more than it has."""
    return 1 + sum((size - 1) * by for size, by in zip(tensor.shape, tensor.stride(), strict=True))


def _on_device_of(tensors: Sequence[Tensor | None]) -> AbstractContextManager[Any]:
    devices = [tensor.device for tensor in tensors if tensor is not None and tensor.is_cuda]
    return torch.cuda.device(devices[0]) if devices else nullcontext()


def _described(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_described, value))
    return Pointer(value.dtype, value.data_ptr() % 16 == 0) if isinstance(value, Tensor) else value


def multiprocessors(device: torch.device) -> int:
    """Of the card; a few for the interpreter, so that programs share work there too."""
    if _recorders:
        return _recorders[-1].multiprocessors
    return 1 if device.type == "cpu" else _multiprocessors(device)


def capability(device: torch.device) -> int:
    """The card's compute capability, 90 for 9.0; the interpreter's is Hopper's."""
    if _recorders:
        return _recorders[-1].capability
    return 90 if device.type == "cpu" else _capability(device)


@cache
def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def _multiprocessors(device: torch.device) -> int:
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def alignment(*counts: int) -> int:
    """Elements by which channel counts and strides are all divisible, 8 at most: how wide loads may be."""
    return math.gcd(8, *counts)
