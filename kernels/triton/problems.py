"""What a grouped launch does: problems that differ in nothing but the tensors they are about.

A kernel takes a tuple of each of their tensors, an entry for a problem, and a last axis of its grid tells
programs which problem is theirs (`pnas_fast.kernels.triton.device.pick`). One problem is a group of one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from pnas_fast.kernels.activation import Accumulator

T = TypeVar("T")


def alike(problems: Iterable[T], likeness: Callable[[T], Hashable]) -> list[list[T]]:
    """Problems of one likeness together, in the order of their first."""
    found: dict[Hashable, list[T]] = {}
    for problem in problems:
        found.setdefault(likeness(problem), []).append(problem)
    return list(found.values())


def each(tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...] | None:
    """A kernel's argument: of each problem its own tensor, or nothing where they have none."""
    present = tuple(tensor for tensor in tensors if tensor is not None)
    assert len(present) in (0, len(tensors))
    return present or None


def accumulators(into: Sequence[Accumulator | None]) -> dict[str, tuple[Tensor, ...] | None]:
    """A kernel's view of where gradients of sources go; None for all where nobody wants them."""
    return {
        "into": each([None if one is None else one.z for one in into]),
        "d_affine": each([None if one is None else one.affine for one in into]),
    }


def added_to(into: Sequence[Accumulator | None]) -> int:
    """A bit for each problem whose gradient is added to, the first problem's the lowest."""
    return sum((one is not None and one.accumulate) << place for place, one in enumerate(into))


def kept(into: Sequence[Accumulator | None]) -> list[Tensor]:
    """Gradients that a launch reads, since it adds to them."""
    return [one.z for one in into if one is not None and one.accumulate]


def new_like(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Memory like each of some tensors."""
    return tuple(torch.empty_like(tensor) for tensor in tensors)
