"""Training steps side by side on one card: graphs on streams of one process, and processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gpu_cases
import gpu_parts
import gpu_timing
import gpu_tools
from gpu_parts import Report
from pnas_fast.engine.graph import WARM_UP, graphed
from pnas_fast.engine.streams import new_stream
from pnas_fast.kernels.triton.planning import planned_for

SECONDS = 2.0
"""For which processes replay their graphs."""

REPLAYS = 40
"""Of each graph on a stream."""


def on_streams(keep: Callable[[Report], None]) -> Report:
    """Steps a second of graphs on streams of their own, with kernels planned for the whole card and a share.

    ``gain`` is beside one graph alone, planned for the whole card.
    """
    found: Report = {}
    for count in gpu_parts.COUNTS:
        for share in sorted({1, count}):
            rate = _streamed(count, share)
            alone = found["1, whole card"]["steps/s"] if found else rate
            name = f"{count}, {'whole card' if share == 1 else f'1/{share} of the card'}"
            found[name] = {"steps/s": rate, "gain": rate / alone}
            keep(found)
    return found


def _streamed(count: int, share: int) -> float:
    """Of steps that are captured and replayed as a search's children are, each on its stream."""
    device = torch.device(gpu_cases.DEVICE)
    streams = [new_stream(device) for _ in range(count)]
    steps = []
    with planned_for(share):
        for stream in streams:
            with stream.entered():
                step = graphed(gpu_parts.step_of(gpu_cases.FUSED), device)
                for _ in range(WARM_UP + 1):
                    step()
            steps.append(step)

    def run(times: int) -> None:
        for _ in range(times):
            for stream, step in zip(streams, steps, strict=True):
                with stream.entered():
                    step()
        gpu_timing.synchronize()

    run(3)
    begin = time.perf_counter()
    run(REPLAYS)
    return count * REPLAYS / (time.perf_counter() - begin)


def in_processes(keep: Callable[[Report], None], folder: Path) -> Report:
    """Steps a second of processes that replay a step's graph at the same time, without and with MPS."""
    found: Report = {"without MPS": _processes()}
    keep(found)
    try:
        with gpu_tools.mps(folder):
            found["with MPS"] = _processes()
    except RuntimeError as error:
        found["with MPS"] = str(error)
    return found


def _processes() -> Report:
    """By the number of processes: steps a second of all, and that beside one. All were forked before any
    used the card.
    """
    context, most = multiprocessing.get_context("fork"), max(gpu_parts.COUNTS)
    barrier, answers = context.Barrier(most), context.SimpleQueue()
    processes = [context.Process(target=_replay, args=(place, barrier, answers)) for place in range(most)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise ValueError(f"exit statuses {[process.exitcode for process in processes]}")
    rates = dict.fromkeys(gpu_parts.COUNTS, 0.0)
    while not answers.empty():
        count, rate = answers.get()
        rates[count] += rate
    return {str(count): {"steps/s": rate, "gain": rate / rates[1]} for count, rate in rates.items()}


def _replay(place: int, barrier: Any, answers: Any) -> None:
    """One of the processes: at each count, the first so many replay and the others wait."""
    try:
        replay = gpu_timing.graphed(gpu_parts.step_of(gpu_cases.FUSED))
        replay()
        gpu_timing.synchronize()
        for count in gpu_parts.COUNTS:
            barrier.wait()
            if place < count:
                answers.put((count, _rate(replay)))
            barrier.wait()
    except BaseException:
        # The others would wait for ever.
        barrier.abort()
        raise


def _rate(replay: Callable[[], Any]) -> float:
    steps, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < SECONDS or not steps:
        for _ in range(4):
            replay()
        gpu_timing.synchronize()
        steps += 4
    return steps / max(seconds, 1e-9)
