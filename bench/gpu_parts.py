"""What is measured on a card: correctness, operations, training steps, kernels of a replayed graph.

Each function is a part of `bench/lease.py`, or of one of its parts. Times are medians, each run from a cold
second-level cache unless it says otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gpu_cases
import gpu_children
import gpu_timing
from gpu_cases import Case, Problem
from pnas_fast.engine import TrainingSettings
from pnas_fast.kernel_tools import warm
from pnas_fast.kernel_tools.cost import CELLS, Card
from pnas_fast.kernels import get_backend
from pnas_fast.kernels.triton.aot import Variant, variant_of
from pnas_fast.kernels.triton.launch import Launch, recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell

CELL, REPEATS, FILTERS, SIZE, BATCH = CELLS["PNASNet-5"], 2, 24, 32, 128
"""Of the training step."""

COUNTS = (1, 2, 4, 8)
"""Children side by side."""

INSIDE = (sys.executable, str(Path(__file__).with_name("lease.py")), "--inside")
"""A command that does one thing in a process of its own; its name comes next."""

Report = dict[str, Any]


def card_numbers() -> tuple[int, int]:
    """Multiprocessors and compute capability, 90 for 9.0."""
    properties = torch.cuda.get_device_properties(0)
    return properties.multi_processor_count, 10 * properties.major + properties.minor


def compile_cases(cases: Sequence[Case]) -> Report:
    """Run every operation once in processes that share the work: what they compile, all find in the cache."""
    count = min(os.cpu_count() or 1, len(cases))
    running = [subprocess.Popen([*INSIDE, f"share:{part}/{count}"]) for part in range(count)]
    return {"processes": count, "exit statuses": [process.wait() for process in running]}


def compile_children() -> Report:
    """Compile what the children of this benchmark launch, in as many processes as there are processors."""
    architecture = card_numbers()[1]
    variants = distinct(children_variants(architecture))
    outcome = warm.compile_all(variants, architecture, os.cpu_count() or 1)
    return dict(outcome._asdict())


def children_variants(architecture: int) -> Iterator[Variant]:
    """Of the kernels that children of this benchmark launch."""
    for image in ((3, SIZE, SIZE), (1, 8, 8)):
        children = warm.Children(REPEATS, FILTERS, image, torch.bfloat16, MAX_BLOCKS, OPERATIONS)
        yield from children.variants(Cell.parse(CELL), architecture)


def cases_variants(cases: Sequence[Case], architecture: int) -> Iterator[Variant]:
    """Of the kernels that operations launch when they are checked and timed."""
    for case in cases:
        for dtype in gpu_cases.LIMITS:
            problem = Problem(case, get_backend("triton"), dtype, batch=5)
            with recording(capability=architecture) as launches:
                problem.results(problem.results(None)[0])
                problem.both(problem.results(None)[0])
            yield from map(variant_of, launches)


def distinct(variants: Iterable[Variant]) -> list[Variant]:
    """Each once."""
    return list({variant.key(): variant for variant in variants}.values())


def run_share(share: str) -> None:
    """Every so-manieth operation, forward and backward in each type: ``2/16``, say, counted from 0."""
    part, count = map(int, share.split("/"))
    for case in gpu_cases.cases()[part::count]:
        for dtype in gpu_cases.LIMITS:
            gpu_cases.check(case, dtype, 1)


def check_all(cases: Sequence[Case], runs: int, keep: Callable[[Report], None] = lambda _: None) -> Report:
    """Relative errors by operation and type, and which are too large; ``keep`` gets what there is so far."""
    errors: dict[str, float] = {}
    failed: list[str] = []
    for case in cases:
        for dtype, limit in gpu_cases.LIMITS.items():
            name = f"{case} {str(dtype)[6:]}"
            errors[name] = error = gpu_cases.check(case, dtype, runs)
            if not error <= limit:
                failed.append(name)
        keep({"errors": errors, "failed": failed})
    return {"errors": errors, "failed": failed}


def time_case(case: Case, card: Card) -> Report:
    """Forward and forward with backward, eager and fused, and the least time of the fused."""
    fused = Problem(case, get_backend(gpu_cases.FUSED), torch.bfloat16, BATCH)
    eager = fused.cast(get_backend("eager"), torch.bfloat16, torch.bfloat16)
    upstream = torch.randn_like(eager.forward())
    row: Report = {"name": str(case)}
    for name, problem in (("eager", eager), ("fused", fused)):
        row[f"{name} forward"] = gpu_timing.milliseconds(gpu_timing.graphed(problem.forward))
        both = gpu_timing.graphed(partial(problem.both, upstream))
        row[f"{name} both"] = gpu_timing.milliseconds(both)
    launches = recorded(lambda: fused.both(upstream))
    row["roofline both"] = 1e3 * sum(map(card.least_seconds, launches))
    return row


def recorded(function: Callable[[], Any]) -> list[Launch]:
    """What a call launches on this card."""
    with recording(*card_numbers()) as launches:
        function()
    return launches


def training_step(backend: str, batch: int | None = None) -> tuple[ChildNetwork, Callable[[Any], None]]:
    """A child, and a step of it or of what is made of it; `BATCH` images unless another number is given."""
    device, shape, batch = gpu_cases.DEVICE, (3, SIZE, SIZE), batch or BATCH
    images = torch.randn(batch, *shape, device=device, dtype=torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=device)
    network = ChildNetwork(Cell.parse(CELL), REPEATS, FILTERS, 10, shape, backend=backend).to(device)
    network.arrange()
    if backend == "eager":
        network.bfloat16()

    def step(called: Any) -> None:
        for parameter in network.parameters():
            parameter.grad = None
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(called(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    return network, step


def step_of(backend: str, batch: int | None = None) -> Callable[[], None]:
    """A training step that keeps its child."""
    network, step = training_step(backend, batch)
    return lambda: step(network)


def step_launches(batch: int | None = None) -> list[Launch]:
    """What a fused training step launches on this card."""
    return recorded(step_of("triton", batch))


def first_seconds(function: Callable[[], Any]) -> float:
    """Of a call, with all that is compiled for it."""
    begin = time.perf_counter()
    function()
    gpu_timing.synchronize()
    return time.perf_counter() - begin


def time_step(backend: str) -> Report:
    """Milliseconds of a training step: as it is, in a CUDA graph, and that from a warm cache."""
    step = step_of(backend)
    row = {"first step, s": first_seconds(step), "step, ms": gpu_timing.milliseconds(step)}
    replay = gpu_timing.graphed(step)
    row["in a graph, ms"] = gpu_timing.milliseconds(replay)
    row["in a graph, warm cache, ms"] = gpu_timing.milliseconds(replay, flushed=False)
    return row


def time_compiled() -> Report:
    """Of eager under `torch.compile`, with the time that compiling takes."""
    network, step = training_step("eager")
    compiled = torch.compile(network)
    return {
        "first step, s": first_seconds(lambda: step(compiled)),
        "step, ms": gpu_timing.milliseconds(lambda: step(compiled)),
    }


def profile_replay(card: Card) -> Report:
    """Every launch of a fused step beside its roofline, as a replay of its graph ran it, and sums by kernel.

    Raises:
        ValueError: other kernels ran than were recorded, or in another order.
    """
    timed = gpu_timing.kernel_microseconds(gpu_timing.graphed(step_of(gpu_cases.FUSED)))
    launches = step_launches()
    rows = gpu_timing.beside_rooflines(timed, launches, card)
    for row, launch in zip(rows, launches, strict=True):
        row["variant"] = variant_of(launch).name()
    others = [time for name, time in timed if name not in {row["kernel"] for row in rows}]
    return {
        "kernels": gpu_timing.by_kernel(rows),
        "launches": rows,
        "others": {"launches": len(others), "microseconds": sum(others)},
    }


def time_batches(keep: Callable[[Report], None]) -> Report:
    """A fused step and separable convolutions at growing batches: how much of a launch's time is fixed.

    A batch of 8 times as many images is 8 identical children in every launch, so ``gain`` is what packing
    them into launches can gain at most: the smallest batch's time for as many images over this one's.
    """
    found: Report = {}
    cases = [case for case in gpu_cases.cases() if case.name.startswith("separable")]
    for name, make in (("step", None), *((str(case), case) for case in cases)):
        row: Report = {}
        for batch in (BATCH, 2 * BATCH, 4 * BATCH, 8 * BATCH):
            call = _case_step(make, batch) if make else step_of(gpu_cases.FUSED, batch)
            row[str(batch)] = gpu_timing.milliseconds(gpu_timing.graphed(call), repeats=10)
        row["gain"] = 8 * row[str(BATCH)] / row[str(8 * BATCH)]
        found[name] = row
        keep(found)
    return found


def _case_step(case: Case, batch: int) -> Callable[[], None]:
    problem = Problem(case, get_backend(gpu_cases.FUSED), torch.bfloat16, batch)
    upstream = torch.randn(
        problem.cast(get_backend("eager"), torch.bfloat16, torch.bfloat16).forward().shape,
        device=gpu_cases.DEVICE,
    )
    return partial(problem.both, upstream)


def step_ceiling(card: Card) -> Report:
    """Images a second if a fused step took what the roofline says of its launches, and nothing else."""
    launches = step_launches()
    seconds = sum(map(card.least_seconds, launches))
    return {
        "images": BATCH, "launches": len(launches), "step, ms": 1e3 * seconds, "images/s": BATCH / seconds
    }  # fmt: skip


def child_settings(backend: str) -> TrainingSettings:
    """Of children of the training step's size."""
    return gpu_children.settings_for(backend, REPEATS, FILTERS, SIZE, BATCH)


def time_children() -> Report:
    """Children of the fused backend side by side."""
    device = "cuda:0" if gpu_cases.DEVICE == "cuda" else gpu_cases.DEVICE
    settings = child_settings(gpu_cases.FUSED)
    return gpu_children.side_by_side(CELL, settings, COUNTS, device, [*INSIDE, "worker"])
