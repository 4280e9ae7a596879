"""Times of fused and of eager work, measured in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from cases import Case, Work
from pnas_fast.threads import torch_threads

LEAST_ROUNDS = 7
SECONDS = 0.5
"""Rounds go on for so long, so that short work has many of them."""


class Times(NamedTuple):
    """The least seconds that each side took.

    What else a machine does only ever adds time, so the least of many rounds is the steadiest.
    """

    fused: float
    eager: float

    @property
    def ratio(self) -> float:
        """Fused ÷ eager."""
        return self.fused / self.eager

    def best(self, other: Times) -> Times:
        """The least of both measurements."""
        return Times(min(self.fused, other.fused), min(self.eager, other.eager))


def settle_allocator() -> None:
    """Let memory be as it is in a process that has trained for a while.

    Once so much was allocated and freed, glibc keeps what is smaller instead of giving it back each time:
    before, eager takes up to twice its time on small maps, and after the first large case it does not.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def measure(case: Case) -> Times:
    """Let both sides work once a round, for several rounds."""
    torch.manual_seed(0)
    settle_allocator()
    # The processor's time leaves out what other processes take of it, but adds up that of threads.
    clock = time.process_time if case.threads == 1 else time.perf_counter
    with torch_threads(case.threads):
        works = case.build("cpu"), case.build("eager")
        for work in works:
            work()
        gc.collect()
        gc.disable()
        try:
            return _least_seconds(works, clock)
        finally:
            gc.enable()


def _least_seconds(works: tuple[Work, Work], clock: Callable[[], float]) -> Times:
    seconds: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + SECONDS
    while len(seconds[0]) < LEAST_ROUNDS or time.perf_counter() < end:
        for work, found in zip(works, seconds, strict=True):
            started = clock()
            work()
            found.append(clock() - started)
    return Times(min(seconds[0]), min(seconds[1]))
