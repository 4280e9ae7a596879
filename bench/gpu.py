"""Everything a rare hour on a GPU should tell, in one command of a few minutes; the table comes last.

    python bench/gpu.py [--quick] [--no-compile] [--out FILE]

Needs a CUDA card, torch, numpy, Triton and the C compiler that Triton asks for, and the checkout: no
network, no installation, no compiled module.

1. Compilation of all kernels, on every processor, into Triton's own cache.
2. Correctness: every operation, forward and backward, against eager fp64 on the card, in fp32 and bf16,
   from memory full of NaN; 20 runs of each give the same bits.
3. Each operation beside eager (channels_last, bf16) and beside its roofline: bytes over the bandwidth of
   a large copy, multiply-adds over the rate of a large product, both measured here.
4. Training steps (PNASNet-5 cell, N = 2, F = 24, batch 128, forward and backward): fused, fused in a CUDA
   graph, every kernel of it beside its roofline; eager, eager in a CUDA graph; `torch.compile` with its
   compile time, last, since it is slow.
5. Whole children of that cell, by the search's own trainer and worker processes: time to the first step,
   images a second of one and of several side by side, beside the roofline of the fused step's launches and
   the goal of 75,000; accuracy after equal epochs, fused and eager. (`gpu_children.py`)
6. `compute-sanitizer` on one small operation of each kind, where it is installed.

Times are medians, each run from a cold second-level cache. The JSON file is written anew after each part,
and a part that fails leaves the reason in it and the others their turn. Exits with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def stand_in(name: str, **members: Any) -> None:
    """A module with these members, in place of one that is not there."""
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def is_missing(name: str) -> bool:
    """Whether there is no such module."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return True
    return False


if not list((ROOT / "pnas_fast").glob("_*.so")):
    # Without compiled modules the package itself cannot be imported, but kernels, networks, training and
    # workers can; the kernels of CPUs are asked for nothing here, and weights of children are not kept.
    stand_in("pnas_fast", __path__=[str(ROOT / "pnas_fast")])
    if is_missing("safetensors"):
        stand_in("safetensors", SafetensorError=Exception, safe_open=None)
        stand_in("safetensors.torch", load_file=None, save=lambda *_: b"")

import gpu_cases  # noqa: E402
import gpu_children  # noqa: E402
import gpu_timing  # noqa: E402
from gpu_cases import Case, Problem  # noqa: E402
from pnas_fast.engine import TrainingSettings  # noqa: E402
from pnas_fast.kernel_tools import warm  # noqa: E402
from pnas_fast.kernel_tools.cost import CELLS, H100, Card  # noqa: E402
from pnas_fast.kernels import get_backend  # noqa: E402
from pnas_fast.kernels.triton.aot import Variant  # noqa: E402
from pnas_fast.kernels.triton.launch import Launch, recording  # noqa: E402
from pnas_fast.network import ChildNetwork  # noqa: E402
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell  # noqa: E402

CELL, REPEATS, FILTERS, SIZE, BATCH = CELLS["PNASNet-5"], 2, 24, 32, 128
"""Of the training step."""

COUNTS = (1, 2, 4, 8)
"""Children side by side."""

MOST_SECONDS = 240
"""Of a part in a process of its own."""

FOUND_ERRORS = 9
"""Exit status of `compute-sanitizer` where it does; else it has that of the program under it."""

Report = dict[str, Any]


def card_numbers() -> tuple[int, int]:
    """Multiprocessors and compute capability, 90 for 9.0."""
    properties = torch.cuda.get_device_properties(0)
    return properties.multi_processor_count, 10 * properties.major + properties.minor


def compile_ahead(cases: Sequence[Case]) -> Report:
    """Run every operation once in processes that share the work: what they compile, all find in the cache."""
    begin, count = time.monotonic(), min(os.cpu_count() or 1, len(cases))
    sizes = ",".join(sorted({str(case.size) for case in cases}))
    command = [sys.executable, __file__, "--sizes", sizes, "--share"]
    running = [subprocess.Popen([*command, f"{part}/{count}"]) for part in range(count)]
    try:
        codes = [process.wait(begin + MOST_SECONDS - time.monotonic()) for process in running]
    finally:
        for process in running:
            process.kill()
    return {"processes": count, "exit statuses": codes}


def compile_children() -> Report:
    """Compile what the children of this benchmark launch, in as many processes as there are processors."""
    architecture, found = card_numbers()[1], dict[Hashable, Variant]()
    for image in ((3, SIZE, SIZE), (1, 8, 8)):
        children = warm.Children(REPEATS, FILTERS, image, torch.bfloat16, MAX_BLOCKS, OPERATIONS)
        for variant in children.variants(Cell.parse(CELL), architecture):
            found.setdefault(variant.key(), variant)
    outcome = warm.compile_all(list(found.values()), architecture, os.cpu_count() or 1)
    return dict(outcome._asdict())


def run_share(cases: Sequence[Case], share: str) -> None:
    """Every so-manieth operation, forward and backward in each type."""
    part, count = map(int, share.split("/"))
    for case in cases[part::count]:
        for dtype in gpu_cases.LIMITS:
            gpu_cases.check(case, dtype, 1)


def check_all(cases: Sequence[Case], runs: int) -> Report:
    """Relative errors by operation and type, and which are too large."""
    errors, failed = {}, []
    for case in cases:
        for dtype, limit in gpu_cases.LIMITS.items():
            name = f"{case} {str(dtype)[6:]}"
            errors[name] = error = gpu_cases.check(case, dtype, runs)
            if not error <= limit:
                failed.append(name)
    return {"errors": errors, "failed": failed}


def time_case(case: Case, card: Card) -> Report:
    """Forward and forward with backward, eager and fused, and the least time of the fused."""
    fused = Problem(case, get_backend("triton"), torch.bfloat16, BATCH)
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


def training_step(backend: str) -> tuple[ChildNetwork, Callable[[Any], None]]:
    """A child, and a step of it or of what is made of it."""
    device, shape = gpu_cases.DEVICE, (3, SIZE, SIZE)
    images = torch.randn(BATCH, *shape, device=device, dtype=torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,), device=device)
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


def first_seconds(function: Callable[[], Any]) -> float:
    """Of a call, with all that is compiled for it."""
    begin = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def time_steps(backend: str) -> Report:
    """Milliseconds of a training step, as it is and in a CUDA graph."""
    network, step = training_step(backend)
    return {
        f"{backend}: first step, s": first_seconds(lambda: step(network)),
        f"{backend}: step, ms": gpu_timing.milliseconds(lambda: step(network)),
        f"{backend}: step in a CUDA graph, ms": gpu_timing.milliseconds(
            gpu_timing.graphed(lambda: step(network))
        ),
    }


def apart(*options: str) -> Report:
    """What this program prints with these options in a process of its own, which may take too long."""
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise RuntimeError(f"{' '.join(options)}: exit status {done.returncode}: {done.stderr[-3000:]}")
    report: Report = json.loads(done.stdout.splitlines()[-1])
    return report


def time_compiled() -> Report:
    """Of eager under `torch.compile`, with the time that compiling takes."""
    network, step = training_step("eager")
    compiled = torch.compile(network)
    return {
        "torch.compile: first step, s": first_seconds(lambda: step(compiled)),
        "torch.compile: step, ms": gpu_timing.milliseconds(lambda: step(compiled)),
    }


def time_kernels(card: Card) -> Report:
    """Every kernel of a fused training step beside its roofline, by name."""
    network, step = training_step("triton")
    timed = gpu_timing.kernel_microseconds(lambda: step(network))
    return gpu_timing.beside_rooflines(timed, recorded(lambda: step(network)), card)


def step_ceiling(card: Card) -> Report:
    """Images a second if a fused step took what the roofline says of its launches, and nothing else."""
    network, step = training_step("triton")
    seconds = sum(map(card.least_seconds, recorded(lambda: step(network))))
    return {"images": BATCH, "step, ms": 1e3 * seconds, "images/s": BATCH / seconds}


def child_settings(backend: str) -> TrainingSettings:
    """Of children of the training step's size."""
    return gpu_children.settings_for(backend, REPEATS, FILTERS, SIZE, BATCH)


def time_children() -> Report:
    """Children of the fused backend side by side."""
    device = "cuda:0" if gpu_cases.DEVICE == "cuda" else gpu_cases.DEVICE
    command = [sys.executable, __file__, "--worker"]
    return gpu_children.side_by_side(CELL, child_settings("triton"), COUNTS, device, command)


def sanitize() -> str:
    """What `compute-sanitizer` says of one small check of each kind of operation."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    command = [tool, "--error-exitcode", str(FOUND_ERRORS), sys.executable, __file__, "--small"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not finished after {MOST_SECONDS} s"
    if done.returncode == 0:
        return "clean"
    words = done.stdout + done.stderr
    summary = re.search(r"ERROR SUMMARY: (\d+) error", words)
    count = int(summary[1]) if summary else 0
    if count or done.returncode == FOUND_ERRORS:
        return f"found {count or 'some'} errors: {words[-2000:]}"
    why = f"the program under it failed by itself, exit status {done.returncode}"
    return f"{'no errors found' if summary else 'did not finish'}, but {why}: {words[-2000:]}"


class Parts:
    """Parts of the report, each in the file as soon as it is there."""

    def __init__(self, out: Path, report: Report) -> None:
        self.out, self.report = out, report
        self.broken: list[str] = []

    def run(self, name: str, part: Callable[[], Any]) -> Any:
        """The part's result, None where it failed."""
        print(f"{name} …", flush=True)
        result, begin = None, time.perf_counter()
        try:
            result = part()
        except Exception:
            self.broken.append(name)
            self.report[f"{name}: failed"] = traceback.format_exc()[-4000:]
            traceback.print_exc()
        self.report[name] = result
        self.report[f"{name}: seconds"] = round(time.perf_counter() - begin, 1)
        self.write()
        return result

    def write(self) -> None:
        """Under a temporary name first."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.out.with_name(f"{self.out.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(self.out)


def run_parts(parts: Parts, cases: Sequence[Case], compiled: bool) -> None:
    """All of them, what matters most first."""
    parts.run("compilation", lambda: compile_ahead(cases))
    parts.run("checks", lambda: check_all(cases, 20))
    parts.run("compilation for children", compile_children)
    card = parts.run("ceilings", lambda: gpu_timing.ceilings()._asdict())
    roof = Card(**card) if card else H100
    parts.run("steps of triton", lambda: time_steps("triton"))
    parts.run("kernels of a step", lambda: time_kernels(roof))
    parts.run("steps of eager", lambda: time_steps("eager"))
    for case in cases:
        parts.run(f"operation {case}", partial(time_case, case, roof))
    parts.run(gpu_children.CEILING, lambda: step_ceiling(roof))
    for backend in gpu_children.BACKENDS:
        parts.run(f"{gpu_children.ALONE} {backend}", partial(apart, "--child", backend))
    parts.run(gpu_children.TOGETHER, time_children)
    if compiled:
        parts.run("steps of torch.compile", lambda: apart("--torch-compile"))
    parts.run("compute-sanitizer", sanitize)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 where a check or a part failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the first stage only")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--small", action="store_true", help="only correctness of a few small operations")
    for name in ("--share", "--sizes", "--child"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--torch-compile", "--worker"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="the JSON file")
    options = parser.parse_args(arguments)
    if options.worker:
        importlib.import_module("pnas_fast.executors.worker").main()
        return 0
    if not torch.cuda.is_available():
        print("bench/gpu.py needs a CUDA card; torch.cuda.is_available() is False")
        return 2
    if options.child:
        print(json.dumps(gpu_children.one_child(CELL, child_settings(options.child), gpu_cases.DEVICE)))
        return 0
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cases = gpu_cases.cases()
    if options.quick:
        cases = [case for case in cases if case.size == gpu_cases.STAGES[0][1]]
    if options.sizes:
        cases = [case for case in cases if str(case.size) in options.sizes.split(",")]
    if options.share:
        run_share(cases, options.share)
        return 0
    if options.torch_compile:
        print(json.dumps(time_compiled()))
        return 0
    if options.small:
        failed = check_all(gpu_cases.small_cases(), 2)["failed"]
        print(f"failed checks: {failed or 'none'}")
        return 1 if failed else 0
    report: Report = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "triton": getattr(sys.modules.get("triton"), "__version__", None),
        "python": platform.python_version(),
    }  # fmt: skip
    name = report["device"].lower().replace(" ", "-")
    parts = Parts(options.out or ROOT / "bench" / "results" / f"gpu-{name}.json", report)
    run_parts(parts, cases, not options.no_compile)
    print_table(report)
    return 1 if parts.broken or report["checks"]["failed"] else 0


def print_table(report: Report) -> None:
    """What matters, short."""
    print(f"{'ms, bf16, batch 128':32} {'forward':>16} {'with backward':>18} {'of roofline':>12}")
    for name, row in report.items():
        if name.startswith("operation ") and isinstance(row, dict):
            forward = f"{row['eager forward']:.3f} → {row['fused forward']:.3f}"
            both = f"{row['eager both']:.3f} → {row['fused both']:.3f}"
            print(
                f"{row['name']:32} {forward:>16} {both:>18} {row['roofline both'] / row['fused both']:12.0%}"
            )
    for name, row in (report.get("kernels of a step") or {}).items():
        share = row["roofline"] / row["microseconds"]
        print(
            f"{name:32} {row['launches']:4} launches {row['microseconds']:9.0f} µs, {share:.0%} of roofline"
        )
    for part in ("triton", "eager", "torch.compile"):
        for name, value in (report.get(f"steps of {part}") or {}).items():
            rate = f"{1e3 * BATCH / value:12,.0f} images/s" if name.endswith("ms") else ""
            print(f"{name:40} {value:10.2f}{rate}")
    print(*gpu_children.lines(report), sep="\n")
    print(f"compute-sanitizer: {report['compute-sanitizer']}")
    checks = report["checks"] or {"errors": {}, "failed": ["all of them"]}
    failed = [name for name in report if name.endswith(": failed")]
    print(
        f"{report['device']}: {len(checks['errors'])} checks, failed: {checks['failed'] or 'none'}; "
        f"parts that did not finish: {failed or 'none'}"
    )


if __name__ == "__main__":
    sys.exit(main())
