"""What the tools beside a card say of kernels: `compute-sanitizer`, Nsight Compute; and the MPS daemon."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import gpu_cases
from gpu_cases import Case, Problem
from gpu_parts import BATCH, INSIDE, Report
from pnas_fast.kernels import get_backend

TOOLS = ("nvidia-smi", "g++", "nvcc", "ncu", "compute-sanitizer", "nvidia-cuda-mps-control")

FOUND_ERRORS = 9
"""Exit status of `compute-sanitizer` where it does; else it has that of the program under it."""

SECTIONS = ("SpeedOfLight", "WarpStateStats", "MemoryWorkloadAnalysis", "Occupancy", "SchedulerStats")
"""Of Nsight Compute: how far from what the card can do, what warps wait for, caches, warps at work."""

OURS = "regex:^(add|separable|pointwise)[a-z_]*_kernel$"
"""Kernels of the worst cases, and not PyTorch's."""

METRICS = re.compile(r"stall|hit rate|occupancy|issue|no eligible|duration|throughput|registers", re.I)
"""Names of what is kept of those sections."""


def tools() -> dict[str, str | None]:
    """Where each tool is, None where it is not installed."""
    return {name: shutil.which(name) for name in TOOLS}


def missing(name: str) -> str:
    """One line for a report."""
    return f"not installed: {name}"


def sanitize() -> str:
    """What `compute-sanitizer` says of one small check of each kind of operation."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return missing("compute-sanitizer")
    command = [tool, "--error-exitcode", str(FOUND_ERRORS), *INSIDE, "small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "clean"
    words = done.stdout + done.stderr
    summary = re.search(r"ERROR SUMMARY: (\d+) error", words)
    count = int(summary[1]) if summary else 0
    if count or done.returncode == FOUND_ERRORS:
        return f"found {count or 'some'} errors: {words[-2000:]}"
    why = f"the program under it failed by itself, exit status {done.returncode}"
    return f"{'no errors found' if summary else 'did not finish'}, but {why}: {words[-2000:]}"


def worst_cases() -> list[Case]:
    """Whose kernels were farthest from their rooflines."""
    return [
        gpu_cases.separable(24, 32, 5, 1), gpu_cases.separable(96, 8, 5, 1),
        gpu_cases.separable(48, 16, 5, 1), gpu_cases.add(48, 16, None, "max"),
    ]  # fmt: skip


def run_worst() -> None:
    """Forward and backward of each of the worst, for a profiler that starts where it is told to."""
    for case in worst_cases():
        problem = Problem(case, get_backend(gpu_cases.FUSED), torch.bfloat16, BATCH)
        upstream = torch.randn_like(problem.results(None)[0])
        torch.cuda.synchronize()
        torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
        problem.results(upstream)
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]


def reasons_to_wait() -> str | list[Report]:
    """Of each kernel of the worst cases, what Nsight Compute says: why warps wait, caches, occupancy."""
    tool = shutil.which("ncu")
    if tool is None:
        return missing("ncu")
    sections = [word for name in SECTIONS for word in ("--section", name)]
    command = [
        tool, "--csv", "--page", "details", "--profile-from-start", "off", "--clock-control", "none",
        "--kernel-name", OURS, *sections, *INSIDE, "worst",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"ncu failed, exit status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
    return read_csv(done.stdout)


def read_csv(text: str) -> list[Report]:
    """Kernels in their order, each with the metrics that are kept; ncu's own lines begin with ``==``."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    kernels: dict[str, Report] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        kernel = kernels.setdefault(row["ID"], {"kernel": row["Kernel Name"], "grid": row.get("Grid Size")})
        name = row.get("Metric Name") or row.get("Rule Name") or ""
        if METRICS.search(name) and row.get("Metric Value"):
            kernel[f"{name}, {row['Metric Unit']}".rstrip(", ")] = row["Metric Value"]
        elif re.search("stall|Issue", name) and row.get("Rule Description"):
            kernel[name] = row["Rule Description"]
    return list(kernels.values())


@contextmanager
def mps(folder: Path) -> Iterator[None]:
    """While it lasts, processes that begin to use the card share it by NVIDIA's MPS.

    The daemon changes no setting of the card; `quit_mps` ends it, too, where this process was killed.

    Raises:
        RuntimeError: it is not installed, or does not start.
    """
    tool = shutil.which("nvidia-cuda-mps-control")
    if tool is None:
        raise RuntimeError(missing("nvidia-cuda-mps-control"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= _mps_environment(folder)
    done = subprocess.run([tool, "-d"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"MPS does not start: {done.stdout + done.stderr}")
    try:
        yield
    finally:
        quit_mps(folder)
        for name in _mps_environment(folder):
            os.environ.pop(name, None)


def quit_mps(folder: Path) -> None:
    """End the daemon of `mps`, if there is one."""
    tool = shutil.which("nvidia-cuda-mps-control")
    if tool is not None and folder.exists():
        environment: dict[str, Any] = os.environ | _mps_environment(folder)
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([tool], input="quit -t 1\n", text=True, env=environment, check=False, timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _mps_environment(folder: Path) -> dict[str, str]:
    return {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
