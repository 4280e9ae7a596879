"""Stand-ins for a card, on the CPU: eager for the fused kernels, tiny shapes, no graph and no profiler.

What they time says nothing; that every part runs to its end is all that can be told with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import gpu_cases
import gpu_children
import gpu_parts
import gpu_prototype
import gpu_timing
import gpu_together
from gpu_cases import Case
from gpu_prototype import Problem, Prototype
from pnas_fast.kernel_tools.cost import H100


def install() -> None:
    """From now on, in this process and those that it forks."""
    torch.set_num_threads(1)
    for module, members in _MEMBERS:
        for name, value in members.items():
            setattr(module, name, value)


def _milliseconds(function: Callable[[], Any], repeats: int = 1, *, flushed: bool = True) -> float:
    begin = time.perf_counter()
    function()
    return max(1e3 * (time.perf_counter() - begin), 1e-6)


def _kernel_microseconds(function: Callable[[], Any]) -> list[tuple[str, float]]:
    """What the fused step would launch, each as though it took 5 µs."""
    return [("memset", 1.0), *((launch.kernel.__name__, 5.0) for launch in gpu_parts.step_launches())]


def _same(function: Callable[[], Any]) -> Callable[[], Any]:
    return function


def _nothing() -> None:
    pass


def _cases() -> list[Case]:
    return [gpu_cases.separable(4, 6, 3, 1), gpu_cases.add(4, 6, "max", None)]


def _prototype() -> Prototype:
    """Launches that write what is right."""

    def forward(_: int, __: int, problem: Problem) -> None:
        right = gpu_prototype.expected(problem)
        problem.out.copy_(right["out"])
        problem.sums.copy_(right["sums"])

    def backward(_: int, problem: Problem, accumulate: bool) -> None:
        right = gpu_prototype.expected(problem)
        problem.into.copy_(right["into"] + problem.into if accumulate else right["into"])
        for name in ("d_affine", "d_depthwise", "d_pointwise"):
            gradient: Tensor = getattr(problem, name)
            gradient.zero_()[0] = right[name]

    return Prototype("nothing", {}, forward, backward)


def _used_memory() -> int:
    return 0


_MEMBERS: list[tuple[ModuleType, dict[str, Any]]] = [
    (gpu_cases, {"DEVICE": "cpu", "FUSED": "eager", "cases": _cases, "small_cases": _cases}),
    (
        gpu_timing,
        {
            "graphed": _same, "milliseconds": _milliseconds, "kernel_microseconds": _kernel_microseconds,
            "synchronize": _nothing, "ceilings": lambda: H100,
        },
    ),
    (
        gpu_parts,
        {
            "CELL": "0:identity+1:max_pool3x3", "REPEATS": 1, "FILTERS": 2, "SIZE": 8, "BATCH": 2,
            "COUNTS": (1, 2), "card_numbers": lambda: (132, 90),
            "compile_cases": lambda _: {"processes": 0, "exit statuses": []},
            "compile_children": lambda: {"compiled": 0, "cached": 0, "errors": []},
        },
    ),
    (
        gpu_children,
        {"IMAGES": 8, "EPOCHS": 2, "JUDGED_EPOCHS": 1, "used_memory": _used_memory},
    ),
    (gpu_prototype, {"build": _prototype, "SETS": 1}),
    (gpu_together, {"SECONDS": 0.0, "REPLAYS": 1}),
]  # fmt: skip
