"""Training steps side by side on one card: graphs on streams of one process, and processes."""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gpu_cases
import gpu_parts
import gpu_timing
import gpu_tools
from gpu_parts import Report
from pnas_fast.kernels.triton import tiles
from pnas_fast.kernels.triton.launch import multiprocessors

SECONDS = 2.0
"""For which processes replay their graphs."""

REPLAYS = 40
"""Of each graph on a stream."""


def on_streams(keep: Callable[[Report], None]) -> Report | str:
    """Steps a second of graphs on streams of their own, with kernels planned for the whole card and a share.

    ``gain`` is beside one graph alone, planned for the whole card.
    """
    if not _have_own_tickets():
        return "all graphs share one buffer of tickets in this tree: two at once are wrong or hang"
    found: Report = {}
    for count in gpu_parts.COUNTS:
        for share in sorted({1, count}):
            rate = _streamed(count, share)
            alone = found["1, whole card"]["steps/s"] if found else rate
            name = f"{count}, {'whole card' if share == 1 else f'1/{share} of the card'}"
            found[name] = {"steps/s": rate, "gain": rate / alone}
            keep(found)
    return found


def _have_own_tickets() -> bool:
    # Eager takes none.
    return gpu_cases.FUSED != "triton" or _tickets() is not None


def _tickets() -> Any:
    name = "pnas_fast.kernels.triton.tickets"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def _owner() -> AbstractContextManager[Any]:
    """Whose tickets a graph takes: those of nobody else."""
    module = _tickets()
    owner: AbstractContextManager[Any] = module.TicketOwner() if module else nullcontext()
    return owner


def _streamed(count: int, share: int) -> float:
    owners = [_owner() for _ in range(count)]
    replays = []
    for owner in owners:
        with owner, planned_for(share):
            replays.append(gpu_timing.graphed(gpu_parts.step_of(gpu_cases.FUSED)))
    streams = [gpu_timing.stream() for _ in replays]

    def run(times: int) -> None:
        for _ in range(times):
            for stream, replay in zip(streams, replays, strict=True):
                with stream:
                    replay()
        gpu_timing.synchronize()

    run(3)
    begin = time.perf_counter()
    run(REPLAYS)
    return count * REPLAYS / (time.perf_counter() - begin)


@contextmanager
def planned_for(share: int) -> Iterator[None]:
    """While it lasts, launches are planned for so small a part of the card's multiprocessors."""
    with patch.object(tiles, "multiprocessors", lambda device: max(1, multiprocessors(device) // share)):
        yield


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
