"""An evaluator without training, and an executor whose tasks end in any order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pnas_fast.protocols import (
    Context,
    DataSource,
    Emit,
    ExecutorEvent,
    Finished,
    Measurement,
    Proposal,
    Spec,
    Started,
    Task,
    Trial,
)
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.driver import Driver
from pnas_fast.space import Cell
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.surrogate import Growth

OPERATIONS = ("sep3x3", "identity", "max_pool3x3")
WORTH = {"sep3x3": 0.05, "identity": 0.02, "max_pool3x3": 0.01}


class MadeUp:
    """Cells have an accuracy by what they are made of; about one child in seventeen fails."""

    identity = "made up"

    def effort(self, cell: Cell) -> float:
        return len(cell)

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        if context.seed % 17 == 0:
            return Measurement("failed", {}, "diverged")
        worth = sum(
            WORTH[name] * (1 + source / 10) for block in proposal.cell.blocks for source, name in block.sides
        )
        return Measurement("done", {"accuracy": 0.4 + worth / 2 + context.seed % 1000 / 1e5})


class Shuffled:
    """``workers`` tasks at once, of which any ends first."""

    def __init__(self, workers: int, seed: int) -> None:
        self._workers, self._random = workers, random.Random(seed)
        self._waiting: list[Task] = []
        self._draining = False
        self.evaluated = 0

    def start(self, evaluator: Spec, data: DataSource) -> None:
        pass

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def events(self) -> Iterator[ExecutorEvent]:
        running = [] if self._draining else self._waiting[: self._workers]
        for task in self._random.sample(running, self._random.randint(1, len(running))) if running else ():
            self._waiting.remove(task)
            yield Started(task)
            self.evaluated += 1
            context = Context(task.number, task.seed, None, "cpu", Path(), lambda images: None)
            yield Finished(task, MadeUp().measure(task.proposal, context))

    def drain(self) -> None:
        self._draining = True

    def close(self) -> None:
        pass


class KilledError(Exception):
    """Stands for the end of the process."""


def progressive(emit: Emit = lambda event: None, beam: int = 6, blocks: int = 3) -> Progressive:
    return Progressive(Growth(blocks, beam, OPERATIONS), 2, 0, emit)


def driven(
    path: Path, workers: int = 1, seed: int = 0, strategy: Any = None, emit: Emit = lambda event: None
) -> list[Trial]:
    """The trials of a run in a store, made or continued."""
    with TrialStore(path, write=True) as store:
        executor = Shuffled(workers, seed)
        strategy = strategy or progressive(emit)
        Driver(strategy, "progressive", MadeUp(), executor, store, 0, emit).run()
        return store.trials()
