"""The parts of `bench/lease.py`, in the order of what matters most, with the seconds that each may take."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpu_cases
import gpu_children
import gpu_parts
import gpu_prototype
import gpu_standins
import gpu_timing
import gpu_together
import gpu_tools
import lease_predictions
from gpu_cases import Case
from gpu_parts import Report
from lease_table import wrong_results
from pnas_fast.kernel_tools import warm
from pnas_fast.kernel_tools.cost import H100, Card

ROUNDS = 3
"""Of two trees in turns."""

RUNS = 5
"""Of each check, which all give the same bits."""

SEARCH = (
    "--operations", "sep3x3,max_pool3x3,identity", "--blocks", "2", "--beam", "8", "--repeats", "2",
    "--filters", "24", "--data", "synthetic:32x32x3/10", "--train-images", "4480", "--epochs", "2",
    "--batch", "128", "--finalists", "0", "--backend", "triton",
)  # fmt: skip
"""A small whole search on the card."""

SMALL_SEARCH = (
    "--operations", "max_pool3x3,identity", "--blocks", "1", "--repeats", "1", "--filters", "2",
    "--data", "synthetic:4x4x1/2", "--train-images", "16", "--epochs", "1", "--batch", "8",
    "--finalists", "0", "--workers", "1", "--backend", "eager", "--device", "cpu", "--first-level", "2",
)  # fmt: skip
"""Its stand-in."""


class Lease(NamedTuple):
    """What parts are given.

    Attributes:
        report: of the parts before, by name under ``parts``.
        folder: for temporary files.
        kernels: a packed cache.
        against: another checkout.
        keep: takes what a part has so far, for the case that it does not end.
    """

    report: Report
    folder: Path
    kernels: Path | None
    against: Path | None
    keep: Callable[[Any], None]

    def card(self) -> Card:
        """What it does at most, as measured, else as published."""
        found = self.report["parts"].get("ceilings", {}).get("result")
        return Card(**found) if found else H100


class Part(NamedTuple):
    """A name, the seconds it may take, and what it does: JSON values, or a text that says why nothing."""

    name: str
    limit: int
    run: Callable[[Lease], Any]


def begin(options: argparse.Namespace, folder: Path) -> Lease:
    """The report before anything was measured, and stand-ins where they are asked for."""
    if options.dry_run:
        gpu_standins.install()
    report = {"stand-ins": options.dry_run, "predictions": lease_predictions.table(), "parts": {}}
    return Lease(report, folder, options.kernels, options.against, lambda _: None)


def end(lease: Lease) -> None:
    """What no part may leave running, however it ended."""
    gpu_tools.quit_mps(lease.folder / "mps")


def after(part: Part, lease: Lease) -> None:
    """What a part leaves to those behind it."""
    row = lease.report["parts"][part.name]["result"]
    if part.name == "facts" and row and not row["card"] and not lease.report["stand-ins"]:
        print("no CUDA card here: stand-ins on the CPU", flush=True)
        gpu_standins.install()
        lease.report["stand-ins"] = True
    lease.report["predictions"] = lease_predictions.compare(lease.report)


def has_failed(report: Report) -> bool:
    """Whether a check or a part failed, or something ended it."""
    statuses = [row["status"] for row in report["parts"].values()]
    return bool(wrong_results(report)) or any(not _is_good(status) for status in statuses)


def _is_good(status: str) -> bool:
    return status == "done" or status.startswith("left out")


def facts(_: Lease) -> Report:
    """The card, versions, tools."""
    smi = shutil.which("nvidia-smi")
    said = subprocess.run([smi, "-q"], capture_output=True, text=True, check=False).stdout if smi else ""
    # Stand-ins, too, say what is there.
    there = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if there else None,
        "capability, multiprocessors": gpu_parts.card_numbers() if there else None,
        "torch": torch.__version__, "triton": sys.modules["triton"].__version__,
        "python": platform.python_version(), "processors": os.cpu_count(),
        "tools": gpu_tools.tools(), "nvidia-smi": said[:6000],
    }  # fmt: skip


def kernels(lease: Lease) -> Report:
    """Unpack what was compiled elsewhere, compile what is missing."""
    found: Report = {}
    if lease.kernels is not None:
        found["unpacked"] = _unpacked(lease.kernels, dry=lease.report["stand-ins"])
        lease.keep(found)
    found["of children"] = gpu_parts.compile_children()
    lease.keep(found)
    if lease.against is not None and not lease.report["stand-ins"]:
        command = [*gpu_parts.INSIDE, "compile", "--tree", str(lease.against.resolve())]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        found["of the other tree"] = done.stdout.strip() or f"exit status {done.returncode}"
        lease.keep(found)
    found["of checks"] = gpu_parts.compile_cases(gpu_cases.cases())
    return found


def _unpacked(path: Path, *, dry: bool) -> Report | str:
    try:
        from pnas_fast.kernel_tools import packed

        found = packed.unpack(path, [] if dry else [gpu_parts.card_numbers()[1]])
    except (ImportError, ValueError, OSError) as error:
        return f"nothing: {error}"
    return {"would have had to be compiled": found.put, "were there": found.there}


def checks(lease: Lease) -> Report:
    """Every operation, forward and backward, against eager fp64, from memory full of NaN."""
    _exactly()
    return gpu_parts.check_all(gpu_cases.cases(), RUNS, lease.keep)


def _exactly() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def operations(lease: Lease) -> list[Report]:
    """Every operation beside eager and its roofline."""
    _exactly()
    rows: list[Report] = []
    for case in gpu_cases.cases():
        rows.append(gpu_parts.time_case(case, lease.card()))
        lease.keep(rows)
    return rows


def against(lease: Lease) -> str | Report:
    """The training steps of two trees in turns, each time in a process of its own."""
    if lease.against is None:
        return "no --against TREE was given"
    trees = {"this tree": Path(__file__).resolve().parent.parent, "the other": lease.against.resolve()}
    dry = ["--dry-run"] if lease.report["stand-ins"] else []
    found: Report = {name: {"ms": []} for name in trees}
    for _ in range(1 if dry else ROUNDS):
        for name, tree in trees.items():
            command = [*gpu_parts.INSIDE, "step", "--tree", str(tree), *dry]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            step = json.loads(done.stdout.splitlines()[-1])
            found[name]["ms"].append(step["in a graph, ms"])
            found[name]["median, ms"] = statistics.median(found[name]["ms"])
            lease.keep(found)
    return found


def search(lease: Lease) -> str | Report:
    """A small whole search by its own command."""
    root = Path(__file__).resolve().parent.parent
    if not list((root / "pnas_fast").glob("_candidates*.so")):
        return "compiled modules are missing: python setup.py build_ext --inplace"
    options = SMALL_SEARCH if lease.report["stand-ins"] else SEARCH
    command = [sys.executable, "-m", "pnas_fast.search", *options, "--out", str(lease.folder / "search")]
    begin, before = time.monotonic(), gpu_children.used_memory()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    found: Report = {
        "seconds": round(time.monotonic() - begin, 1), "exit status": done.returncode,
        "left on the card, GiB": (gpu_children.used_memory() - before) / gpu_children.GIB,
        "said": (done.stdout + done.stderr)[-2000:],
    }  # fmt: skip
    lease.keep(found)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}")
    return found


def child(backend: Callable[[], str], _: Lease) -> Report:
    """A whole child by the search's own trainer."""
    settings = gpu_parts.child_settings(backend())
    return gpu_children.one_child(gpu_parts.CELL, settings, gpu_cases.DEVICE)


def compiled(lease: Lease) -> Report | str:
    """Eager under `torch.compile`."""
    if lease.report["stand-ins"]:
        return "not with stand-ins: it would take minutes"
    return gpu_parts.time_compiled()


PARTS = (
    Part("facts", 20, facts),
    Part("kernels", 120, kernels),
    Part("checks", 50, checks),
    Part("ceilings", 8, lambda _: gpu_timing.ceilings()._asdict()),
    Part("step", 15, lambda _: gpu_parts.time_step(gpu_cases.FUSED)),
    Part(gpu_children.CEILING, 10, lambda lease: gpu_parts.step_ceiling(lease.card())),
    Part("replay by launch", 20, lambda lease: gpu_parts.profile_replay(lease.card())),
    Part("batches", 40, lambda lease: gpu_parts.time_batches(lease.keep)),
    Part("prototype", 20, lambda lease: gpu_prototype.measure(lease.keep)),
    Part("graphs on streams", 60, lambda lease: gpu_together.on_streams(lease.keep)),
    Part("processes", 80, lambda lease: gpu_together.in_processes(lease.keep, lease.folder / "mps")),
    Part("reasons to wait", 70, lambda _: gpu_tools.reasons_to_wait()),
    Part("two trees", 60, against),
    Part("eager step", 40, lambda _: gpu_parts.time_step("eager")),
    Part("search", 70, search),
    Part("compute-sanitizer", 40, lambda _: gpu_tools.sanitize()),
    Part(f"{gpu_children.ALONE} triton", 30, partial(child, lambda: gpu_cases.FUSED)),
    Part(f"{gpu_children.ALONE} eager", 50, partial(child, lambda: "eager")),
    Part("operations", 60, operations),
    Part(gpu_children.TOGETHER, 90, lambda _: gpu_parts.time_children()),
    Part("torch.compile", 240, compiled),
)
"""The last five run if there is time."""


def pack(path: Path, python: str | None, cases: Sequence[Case]) -> int:
    """Compile what all parts launch, for Hopper, into a file for --kernels; 1 where a kernel fails."""
    from pnas_fast.kernel_tools import packed

    gpu_cases.DEVICE = "cpu"
    variants = gpu_parts.distinct(
        (*gpu_parts.children_variants(warm.PACKED), *gpu_parts.cases_variants(cases, warm.PACKED))
    )
    print(f"{len(variants)} kernels …", flush=True)
    outcome = warm.compile_all(variants, warm.PACKED, len(os.sched_getaffinity(0)))
    print(*outcome.errors, sep="\n", file=sys.stderr)
    if outcome.errors:
        return 1
    size = packed.pack(path, variants, warm.PACKED, python or packed.this_python())
    print(f"{path}: {size / 1e6:.1f} MB, {outcome.compiled} kernels were compiled for it")
    return 0


def inside(name: str, *, dry: bool) -> int:
    """What this program does in a process that it started itself, by name."""
    if dry:
        gpu_standins.install()
    what, _, which = name.partition(":")
    if what == "worker":
        from pnas_fast.executors import worker

        worker.main()
    elif what == "share":
        gpu_parts.run_share(which)
    elif what == "compile":
        print(json.dumps(gpu_parts.compile_children()))
    elif what == "step":
        print(json.dumps(gpu_parts.time_step(gpu_cases.FUSED)))
    elif what == "worst":
        gpu_tools.run_worst()
    elif what == "small":
        _exactly()
        failed = gpu_parts.check_all(gpu_cases.small_cases(), 2)["failed"]
        print(f"failed checks: {failed or 'none'}")
        return 1 if failed else 0
    else:
        raise ValueError(f"--inside {name}: no such thing")
    return 0
