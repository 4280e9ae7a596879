"""The tensor-core prototype of a separable half: right or wrong, and how long beside the Triton kernels.

Its sources (`prototype/`) are compiled for the card at hand by nvcc, or where that is missing or fails by
the NVRTC that comes with PyTorch, and launched by the CUDA driver. One image of 32×32×24 is a block's.

What is compared: the prototype reads scale and shift of its source and gives their gradients, which the
Triton kernels of these cases have none of; those add up sums over images, make the batch norm of them and
take its gradient apart, where the prototype leaves a row an image.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import gpu_cases
import gpu_driver
import gpu_parts
import gpu_timing
from gpu_parts import Report
from pnas_fast.kernels import get_backend

SOURCES = Path(__file__).with_name("prototype")

TAPS = (3, 5, 7)
"""Rows and columns of a kernel."""

WARPS = (8, 12, 24)
"""Of a block, forward; backward has the first of them."""

CHANNELS, SIZE = 24, 32
"""Of an image."""

SETS = 4
"""Problems one after the other in a timed graph: alone, much of a launch's time would be the graph's own."""

LIMIT = gpu_cases.LIMITS[torch.bfloat16]
"""Of relative errors, ‖got − expected‖ / ‖expected‖."""


class Kernel(NamedTuple):
    """What is compiled: a direction, taps along a side, warps of a block."""

    direction: str
    taps: int
    warps: int

    def source(self) -> gpu_driver.Source:
        """Where it is defined."""
        path, name = SOURCES / f"{self.direction}.cu", f"separable_{self.direction}"
        macros = {"TAPS": self.taps, "WARPS": self.warps, "SHARED_BYTES": self.shared_bytes()}
        return gpu_driver.Source(path, name, 32 * self.warps, self.shared_bytes(), macros)

    def shared_bytes(self) -> int:
        """Of a block, as the sources have it."""
        pixels, planes = SIZE * SIZE, CHANNELS * (SIZE + self.taps - 1) * 80
        if self.direction == "forward":
            return planes + CHANNELS * (2 * pixels + 16)
        return 2 * planes + CHANNELS * 2 * pixels + CHANNELS * (pixels + 16)

    def __str__(self) -> str:
        return f"{self.direction} {self.taps}×{self.taps}, {self.warps} warps"


KERNELS = (
    *(Kernel("forward", taps, warps) for taps in TAPS for warps in WARPS),
    *(Kernel("backward", taps, WARPS[0]) for taps in TAPS),
)


class Problem(NamedTuple):
    """Tensors of a launch, as `prototype/forward.cu` and `prototype/backward.cu` describe them."""

    z: Tensor
    affine: Tensor
    depthwise: Tensor
    pointwise: Tensor
    g: Tensor
    norm: Tensor
    out: Tensor
    sums: Tensor
    into: Tensor
    d_affine: Tensor
    d_depthwise: Tensor
    d_pointwise: Tensor


class Prototype(NamedTuple):
    """Launches, and what is known of the kernels.

    Attributes:
        compiler: that made them.
        facts: of each kernel.
        forward: of taps and warps, on a problem.
        backward: of taps, on a problem whose ``out`` is there; added to ``into`` if told so, else written.
    """

    compiler: str
    facts: dict[str, Report]
    forward: Callable[[int, int, Problem], None]
    backward: Callable[[int, Problem, bool], None]


def new_problem(taps: int, images: int) -> Problem:
    """Random inputs, and outputs full of NaN."""

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=gpu_cases.DEVICE).to(dtype)

    def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full(shape, float("nan"), device=gpu_cases.DEVICE, dtype=dtype)

    maps, half, c = (images, SIZE, SIZE, CHANNELS), torch.bfloat16, CHANNELS
    return Problem(
        random(*maps, dtype=half), random(2, c), random(taps, taps, c), random(c, c),
        random(*maps, dtype=half), random(2, c), poisoned(*maps, dtype=half), poisoned(images, 2, c),
        poisoned(*maps, dtype=half), poisoned(images, 2, c), poisoned(images, taps, taps, c),
        poisoned(images, c, c),
    )  # fmt: skip


def expected(problem: Problem) -> dict[str, Tensor]:
    """By name what a launch should leave, in fp64: sums of the forward by image, gradients over all.

    The backward's upstream gradient is made of the ``out`` that is there.
    """
    leaves = [x.double().requires_grad_() for x in problem[:4]]
    z, affine, depthwise, pointwise = leaves
    taps = len(depthwise)
    edge = taps // 2
    r = functional.pad(torch.relu(affine[0] * z + affine[1]), (0, 0, edge, edge, edge, edge))
    d = torch.zeros_like(z)
    for i, j in itertools.product(range(taps), repeat=2):
        d = d + depthwise[i, j] * r[:, i : i + SIZE, j : j + SIZE]
    out = d @ pointwise.T
    offset, slope = problem.norm.double()
    gradients = torch.autograd.grad(out, leaves, problem.g.double() + offset + slope * problem.out.double())
    out = out.detach()
    names = ("into", "d_affine", "d_depthwise", "d_pointwise")
    sums = torch.stack([out.sum((1, 2)), out.square().sum((1, 2))], 1)
    return {"out": out, "sums": sums, **dict(zip(names, gradients, strict=True))}


def check(prototype: Prototype, taps: int, images: int) -> dict[str, float]:
    """Relative errors by what is computed, each from outputs full of NaN."""
    errors: dict[str, float] = {}
    for warps in WARPS:
        problem = new_problem(taps, images)
        prototype.forward(taps, warps, problem)
        right = expected(problem)
        for name in ("out", "sums"):
            errors[f"{name} by {warps} warps"] = relative(getattr(problem, name), right[name])
    prototype.backward(taps, problem, False)
    for name in ("d_affine", "d_depthwise", "d_pointwise"):
        errors[name] = relative(getattr(problem, name).double().sum(0), right[name])
    errors["into"] = relative(problem.into, right["into"])
    problem.into.copy_(problem.g)
    prototype.backward(taps, problem, True)
    errors["into added to"] = relative(problem.into, right["into"] + problem.g.double())
    return errors


def relative(got: Tensor, right: Tensor) -> float:
    """‖got − right‖ / ‖right‖."""
    return float((got.double() - right).norm() / right.norm())


def measure(keep: Callable[[Report], None]) -> Report:
    """Errors of the prototype, then its times, then the Triton kernels' and how often they are as long.

    A backward's time is that of forward and backward less the forward's; ``forward`` is of the best number
    of warps; ``ratio`` is of forward and backward together.
    """
    begin = time.perf_counter()
    prototype = build()
    found: Report = {
        "compiled by": prototype.compiler, "compiled and loaded, s": time.perf_counter() - begin,
        "kernels": prototype.facts, "errors": {}, "failed": [], "µs": {},
    }  # fmt: skip
    for taps in TAPS:
        errors = found["errors"][f"{taps}×{taps}"] = check(prototype, taps, gpu_parts.BATCH)
        found["failed"] += [
            f"prototype {taps}×{taps} {name}" for name, error in errors.items() if not error <= LIMIT
        ]
        keep(found)
    for taps in TAPS:
        found["µs"][f"{taps}×{taps}"] = _time_prototype(prototype, taps)
        keep(found)
    for taps in TAPS:
        row = found["µs"][f"{taps}×{taps}"]
        row |= _time_triton(taps)
        for direction in ("forward", "backward"):
            row[f"ratio {direction}"] = row[f"Triton {direction}"] / row[direction]
        row["ratio"] = (row["Triton forward"] + row["Triton backward"]) / (row["forward"] + row["backward"])
        keep(found)
    return found


def _time_prototype(prototype: Prototype, taps: int) -> Report:
    problems = [new_problem(taps, gpu_parts.BATCH) for _ in range(SETS)]
    row: Report = {}
    for warps in WARPS:
        row[f"forward by {warps} warps"] = _microseconds(
            [partial(prototype.forward, taps, warps, problem) for problem in problems]
        )
    best = min(WARPS, key=lambda warps: row[f"forward by {warps} warps"])

    def both(problem: Problem) -> None:
        prototype.forward(taps, best, problem)
        prototype.backward(taps, problem, False)

    row["forward"] = row[f"forward by {best} warps"]
    row["backward"] = _microseconds([partial(both, problem) for problem in problems]) - row["forward"]
    return row


def _time_triton(taps: int) -> Report:
    case, backend = gpu_cases.separable(CHANNELS, SIZE, taps, 1), get_backend(gpu_cases.FUSED)
    problems = [gpu_cases.Problem(case, backend, torch.bfloat16, gpu_parts.BATCH) for _ in range(SETS)]
    upstream = torch.randn_like(problems[0].sources[0])
    forward = _microseconds([problem.forward for problem in problems])
    both = _microseconds([partial(problem.both, upstream) for problem in problems])
    return {"Triton forward": forward, "Triton backward": both - forward}


def _microseconds(calls: Sequence[Callable[[], Any]]) -> float:
    """Of one of these calls, which are alike and follow each other in a graph."""

    def run() -> None:
        for call in calls:
            call()

    return 1e3 * gpu_timing.milliseconds(gpu_timing.graphed(run)) / len(calls)


def build() -> Prototype:
    """The prototype on this card, by the first compiler whose kernels can be loaded.

    Raises:
        RuntimeError: there is none; its text says why of each.
    """
    said = []
    for name, compiler in (("nvcc", gpu_driver.by_nvcc), ("NVRTC", gpu_driver.by_nvrtc)):
        try:
            return _built(name, compiler)
        except (OSError, RuntimeError) as error:
            said.append(f"{name}: {error}")
    raise RuntimeError("; ".join(said))


def _built(name: str, compiler: Callable[[gpu_driver.Source, int], bytes]) -> Prototype:
    torch.zeros(1, device=gpu_cases.DEVICE)  # kernels are loaded into PyTorch's context
    architecture = gpu_parts.card_numbers()[1]
    with ThreadPoolExecutor() as threads:
        cubins = list(threads.map(lambda kernel: compiler(kernel.source(), architecture), KERNELS))
    loaded = {
        kernel: gpu_driver.Loaded(kernel.source(), cubin)
        for kernel, cubin in zip(KERNELS, cubins, strict=True)
    }

    def forward(taps: int, warps: int, p: Problem) -> None:
        launch = loaded[Kernel("forward", taps, warps)]
        launch(len(p.z), p.z, p.affine, p.depthwise, p.pointwise, p.out, p.sums)

    def backward(taps: int, p: Problem, accumulate: bool) -> None:
        launch = loaded[Kernel("backward", taps, WARPS[0])]
        sources = (p.z, p.affine, p.depthwise, p.pointwise, p.out, p.g, p.norm)
        launch(len(p.z), *sources, p.into, int(accumulate), p.d_affine, p.d_depthwise, p.d_pointwise)

    facts = {str(kernel): launch.facts() for kernel, launch in loaded.items()}
    return Prototype(name, facts, forward, backward)
