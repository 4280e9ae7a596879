"""Everything a rare hour on a GPU should tell, in one command of a few minutes; the table comes last.

    python bench/gpu.py [--quick] [--no-compile] [--out FILE]

Needs a CUDA card, torch and Triton, and the checkout: no network, no installation, no compiled module.

1. Correctness: every operation, forward and backward, against eager fp64 on the card, in fp32 and bf16,
   from memory full of NaN; 20 runs of each give the same bits.
2. Each kernel beside eager (channels_last, bf16) and beside its roofline: bytes over the bandwidth of a
   large copy, multiply-adds over the rate of a large product, both measured here.
3. Training steps (PNASNet-5 cell, N = 2, F = 24, batch 128, forward and backward): eager, eager in a CUDA
   graph, `torch.compile` with its compile time, fused, fused in a CUDA graph.
4. `compute-sanitizer` on a small step, where it is installed.

Times are medians, each run from a cold second-level cache. Exits with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if not list((ROOT / "pnas_fast").glob("_candidates*.so")):
    # Without the compiled module the package itself cannot be imported, but kernels and networks can.
    sys.modules["pnas_fast"] = types.ModuleType("pnas_fast")
    sys.modules["pnas_fast"].__path__ = [str(ROOT / "pnas_fast")]

from pnas_fast.kernels import Backend, CellOutput, Side, get_backend  # noqa: E402
from pnas_fast.kernels.cost import CELLS, H100  # noqa: E402
from pnas_fast.kernels.triton.launch import recording  # noqa: E402
from pnas_fast.network import ChildNetwork  # noqa: E402
from pnas_fast.space import Cell  # noqa: E402

DEVICE = "cuda"

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
        filters: of its norm, 0 for none.
        run: from a backend, sources, weights and a norm to a state.
    """

    name: str
    channels: int
    size: int
    sources: int
    weights: tuple[tuple[int, ...], ...]
    filters: int
    run: Callable[[Backend[Any], list[Tensor], list[Tensor], Any], Any]


def separable(channels: int, size: int, kernel: int, stride: int, dilation: int = 1) -> Case:
    """A separable half from and to the same channels."""
    weights = ((channels, 1, kernel, kernel), (channels, channels, 1, 1))
    name = (
        f"separable {kernel}×{kernel}" + (" dilated" if dilation > 1 else "") + (" /2" if stride > 1 else "")
    )

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        return backend.separable(x[0], w[0], w[1], norm, stride=stride, dilation=dilation)

    return Case(name, channels, size, 1, weights, channels, run)


def dense(channels: int, filters: int, size: int, kernel: tuple[int, int], stride: tuple[int, int]) -> Case:
    """A dense convolution with a norm."""

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        return backend.convolution(x[0], w[0], norm, stride=stride)

    weights = ((filters, channels, *kernel),)
    name = f"dense {kernel[0]}×{kernel[1]}" + (" /2" if max(stride) > 1 else "")
    return Case(name, channels, size, 1, weights, filters, run)


def factorized(channels: int, filters: int, size: int) -> Case:
    """A factorized reduction."""
    half = filters // 2, filters - filters // 2

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        return backend.factorized_reduction(x[0], w[0], w[1], norm)

    weights = tuple((part, channels, 1, 1) for part in half)
    return Case("factorized", channels, size, 1, weights, filters, run)


def add(channels: int, size: int, left: Any, right: Any) -> Case:
    """A block's sum."""

    def run(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        output = CellOutput(1)
        return backend.concatenate([backend.add(Side(x[0], left), Side(x[1], right), output, 0)], output)

    return Case(f"add {left or 'as is'} + {right or 'as is'}", channels, size, 2, (), 0, run)


def cases() -> list[Case]:
    """Every operation at every stage of a child."""
    found = []
    for f, size in STAGES:
        found += [separable(f, size, k, s) for k in (3, 5, 7) for s in (1, 2)]
        found += [separable(f, size, 3, 1, 2), dense(5 * f, f, size, (1, 1), (1, 1))]
        found += [dense(f, f, size, (1, 7), (1, 1)), dense(f, f, size, (7, 1), (1, 1))]
        found += [dense(f, f, size, (1, 1), (2, 2)), factorized(5 * f, f, size)]
        found += [add(f, size, None, None), add(f, size, "max", None), add(f, size, "avg", "max")]
    return found


class Problem:
    """A case's tensors, and one backend's forward and backward on them."""

    def __init__(self, case: Case, backend: Backend[Any], dtype: torch.dtype, batch: int) -> None:
        draw = torch.Generator(DEVICE).manual_seed(torch.seed() % 2**31 if batch < 16 else 0)
        self.case, self.backend = case, backend
        shape = (batch, case.channels, case.size, case.size)

        def random(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, device=DEVICE, generator=draw)

        self.sources = [
            random(shape).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(case.sources)
        ]
        self.weights = [random(weight) for weight in case.weights]
        self.norm = nn.BatchNorm2d(case.filters, device=DEVICE) if case.filters else None

    def cast(self, backend: Backend[Any], dtype: torch.dtype, weights: torch.dtype) -> Problem:
        """The same problem for another backend."""
        other = copy.deepcopy(self)
        other.backend = backend
        other.sources = [source.to(dtype) for source in other.sources]
        other.weights = [weight.to(weights) for weight in other.weights]
        if other.norm is not None:
            other.norm.to(weights)
        return other

    def leaves(self) -> list[Tensor]:
        """What gradients are taken of."""
        parameters = [] if self.norm is None else list(self.norm.parameters())
        return [*self.sources, *self.weights, *parameters]

    def forward(self) -> Any:
        """The operation's state."""
        for leaf in self.leaves():
            leaf.requires_grad_()
        return self.case.run(self.backend, self.sources, self.weights, self.norm)

    def results(self, upstream: Tensor | None) -> tuple[Tensor, ...]:
        """The result, and from an upstream gradient every gradient."""
        out = self.backend.materialise(self.forward())
        if upstream is None:
            return (out.detach(),)
        return out.detach(), *torch.autograd.grad(out, self.leaves(), upstream.to(out.dtype))


class Poisoned:
    """While it lasts, new floating-point tensors are full of NaN."""

    def __enter__(self) -> None:
        self._kept = torch.empty, torch.empty_like, Tensor.new_empty

        def poison(make: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Tensor:
                tensor: Tensor = make(*args, **kwargs)
                return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

            return call

        torch.empty, torch.empty_like, Tensor.new_empty = map(poison, self._kept)

    def __exit__(self, *_: object) -> None:
        torch.empty, torch.empty_like, Tensor.new_empty = self._kept


def check(case: Case, dtype: torch.dtype, runs: int) -> float:
    """The largest relative error of results and gradients; infinite where bits differ between runs."""
    fused = Problem(case, get_backend("triton"), dtype, batch=5)
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


def graphed(function: Callable[[], Any]) -> Callable[[], None]:
    """A CUDA graph of a call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def milliseconds(function: Callable[[], Any], repeats: int = 30) -> float:
    """The median time of a call, from a cold second-level cache."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device=DEVICE)
    times = []
    for _ in range(repeats + 5):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[5:])


def ceilings() -> tuple[float, float]:
    """(bytes, bf16 multiply-adds) a millisecond: of a large copy and a large product."""
    source = torch.randn(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * 4 / milliseconds(lambda: target.copy_(source))
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    return copied, 8192**3 / milliseconds(lambda: a @ a)


def time_case(case: Case, roof: tuple[float, float], batch: int) -> dict[str, Any]:
    """Forward and forward with backward, eager and fused, and the least time of the fused."""
    row: dict[str, Any] = {"name": case.name, "channels": case.channels, "size": case.size}
    fused = Problem(case, get_backend("triton"), torch.bfloat16, batch)
    eager = fused.cast(get_backend("eager"), torch.bfloat16, torch.bfloat16)
    upstream = torch.randn_like(eager.results(None)[0])
    for name, problem in (("eager", eager), ("fused", fused)):

        def forward(problem: Problem = problem) -> None:
            problem.forward()

        def both(problem: Problem = problem) -> None:
            problem.results(upstream)

        row[f"{name} forward"] = milliseconds(graphed(forward))
        row[f"{name} both"] = milliseconds(graphed(both))
    with recording() as launches:
        fused.results(upstream)
    card = H100._replace(bytes=roof[0] * 1e3, products=roof[1] * 1e3)
    row["roofline both"] = 1e3 * sum(map(card.least_seconds, launches))
    return row


def steps(compiled: bool, batch: int) -> dict[str, Any]:
    """Milliseconds of whole training steps, and seconds of compilation."""
    cell, result = Cell.parse(CELLS["PNASNet-5"]), {}
    images = torch.randn(batch, 3, 32, 32, device=DEVICE, dtype=torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=DEVICE)

    def step_of(network: Any) -> Callable[[], None]:
        def step() -> None:
            for parameter in network.parameters():
                parameter.grad = None
            with torch.autocast("cuda", torch.bfloat16):
                loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()

        return step

    for name in ("eager", "fused"):
        backend = "triton" if name == "fused" else "eager"
        network = ChildNetwork(cell, 2, 24, 10, (3, 32, 32), backend=backend).cuda()
        network.to(memory_format=torch.channels_last)
        if name == "eager":
            network.bfloat16()
        step = step_of(network)
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        result[f"{name}: first step, s"] = time.perf_counter() - begin
        result[f"{name}: step, ms"] = milliseconds(step)
        result[f"{name}: step in a CUDA graph, ms"] = milliseconds(graphed(step))
        if name == "eager" and compiled:
            compiled_step = step_of(torch.compile(network))
            begin = time.perf_counter()
            compiled_step()
            torch.cuda.synchronize()
            result["torch.compile: first step, s"] = time.perf_counter() - begin
            result["torch.compile: step, ms"] = milliseconds(compiled_step)
    return result


def sanitize() -> str:
    """What `compute-sanitizer` says of one small check of each kind of operation."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    command = [tool, "--error-exitcode", "9", sys.executable, __file__, "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "clean" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 where a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the first stage only")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--small", action="store_true", help="correctness of the first stage only")
    parser.add_argument("--out", type=Path, help="the JSON file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("bench/gpu.py needs a CUDA card; torch.cuda.is_available() is False")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    stages = STAGES[:1] if options.quick or options.small else STAGES
    chosen = [case for case in cases() if case.size in {size for _, size in stages}]
    errors = {
        f"{case.name} {case.channels}@{case.size} {str(dtype)[6:]}": check(
            case, dtype, 2 if options.small else 20
        )
        for case in chosen
        for dtype in LIMITS
    }
    limits = {name: LIMITS[torch.float32 if name.endswith("float32") else torch.bfloat16] for name in errors}
    failed = [name for name, error in errors.items() if not error <= limits[name]]
    if options.small:
        return 1 if failed else 0
    roof = ceilings()
    rows = [time_case(case, roof, 128) for case in chosen]
    report = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "python": platform.python_version(),
        "bytes per second": roof[0] * 1e3, "bf16 multiply-adds per second": roof[1] * 1e3,
        "errors": errors, "failed": failed, "kernels": rows,
        "steps": steps(not options.no_compile, 128), "compute-sanitizer": sanitize(),
    }  # fmt: skip
    name = report["device"].lower().replace(" ", "-")
    out = options.out or ROOT / "bench" / "results" / f"gpu-{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print_table(report)
    return 1 if failed else 0


def print_table(report: dict[str, Any]) -> None:
    """What matters, short."""
    print(f"{'ms, bf16, batch 128':28} {'forward':>16} {'with backward':>18} {'of roofline':>12}")
    for row in report["kernels"]:
        name = f"{row['name']} {row['channels']}@{row['size']}"
        forward = f"{row['eager forward']:.3f} → {row['fused forward']:.3f}"
        both = f"{row['eager both']:.3f} → {row['fused both']:.3f}"
        print(f"{name:28} {forward:>16} {both:>18} {row['roofline both'] / row['fused both']:12.0%}")
    for name, value in report["steps"].items():
        print(f"{name:40} {value:10.2f}")
    print(f"compute-sanitizer: {report['compute-sanitizer']}")
    print(f"{report['device']}: {len(report['errors'])} checks, failed: {report['failed'] or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
