"""Times on a card: of calls, of CUDA graphs, of single kernels; and what the card does at most."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C._autograd import DeviceType

from pnas_fast.kernel_tools.cost import H100, Card
from pnas_fast.kernels.triton.launch import Launch

DEVICE = "cuda"


def graphed(function: Callable[[], Any]) -> Callable[[], Any]:
    """A CUDA graph of a call, which is warmed up and captured on one stream."""
    # An earlier call on another stream may lie about as garbage, and would keep the nodes by which gradients
    # are added up in leaves: they belong to the stream on which they were made, and would be used again here.
    gc.collect()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()
    return Replay(graph, function)


class Replay:
    """A captured call; it keeps the tensors that the call used and did not make."""

    def __init__(self, graph: Any, function: Callable[[], Any]) -> None:
        self.graph, self.function = graph, function

    def __call__(self) -> None:
        """Once."""
        self.graph.replay()


def synchronize() -> None:
    """Wait for the card."""
    torch.cuda.synchronize()


def milliseconds(function: Callable[[], Any], repeats: int = 30, *, flushed: bool = True) -> float:
    """The median time of a call, from a cold second-level cache unless that is not to be flushed."""
    other = torch.zeros(64 << 20, device=DEVICE)
    times: list[float] = []
    for _ in range(repeats + 5):
        if flushed:
            # Read, not written: what is written is brought back to memory during the call.
            other.sum()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")  # type: ignore[no-untyped-call]
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[5:])


def ceilings() -> Card:
    """Bytes and multiply-adds a second: of a large copy and a large bf16 product. fp32 units as published."""
    source = torch.randn(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * 4 / milliseconds(lambda: target.copy_(source))
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    return H100._replace(bytes=1e3 * copied, products=1e3 * 8192**3 / milliseconds(lambda: a @ a))


def kernel_microseconds(function: Callable[[], Any]) -> list[tuple[str, float]]:
    """The kernels of a call in the order in which they began, each with its time, as CUPTI says."""
    function()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == DeviceType.CUDA]
    events.sort(key=lambda event: event.time_range.start)
    return [(event.name, event.time_range.elapsed_us()) for event in events]


def beside_rooflines(
    timed: Sequence[tuple[str, float]], launches: Sequence[Launch], card: Card
) -> list[dict[str, Any]]:
    """By launch: kernel, microseconds, and the least that a card needs for its work.

    Raises:
        ValueError: other kernels ran than were recorded, or in another order.
    """
    names = {launch.kernel.__name__ for launch in launches}
    ours = [(name, time) for name, time in timed if name in names]
    if [name for name, _ in ours] != [launch.kernel.__name__ for launch in launches]:
        raise ValueError(f"{len(ours)} kernels ran where {len(launches)} were recorded, or in another order")
    return [
        {
            "kernel": name, "grid": list(launch.grid), "microseconds": time,
            "roofline": 1e6 * card.least_seconds(launch),
        }
        for (name, time), launch in zip(ours, launches, strict=True)
    ]  # fmt: skip


def by_kernel(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Launches, microseconds and roofline of all launches of each kernel."""
    found: dict[str, dict[str, float]] = {}
    for launch in rows:
        row = found.setdefault(launch["kernel"], {"launches": 0, "microseconds": 0.0, "roofline": 0.0})
        row["launches"] += 1
        row["microseconds"] += launch["microseconds"]
        row["roofline"] += launch["roofline"]
    return found
