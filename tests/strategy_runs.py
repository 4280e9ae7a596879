"""Strategies run without networks: a made-up landscape, and a driver with simulated workers."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from pnas_fast.protocols import Finished, Key, Measurement, Proposal, Strategy, Task, Trial
from pnas_fast.space import CELL_INPUTS, Cell, effort

Memo = dict[Key, Measurement]


class KilledError(Exception):
    """The process is gone; what it had measured is remembered."""


def uniform(*values: object) -> float:
    """A number in [0, 1) that follows from the values alone."""
    digest = hashlib.sha256(repr(values).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def true_accuracy(cell: Cell) -> float:
    """Additive in sides and in pairs of operations, so that neighbours are alike."""
    total, sides = 0.0, 0
    for block in cell.canonical().blocks:
        for source, operation in block.sides:
            total += uniform(min(source, CELL_INPUTS), operation)
            sides += 1
        total += uniform("pair", *sorted((block.op1, block.op2)))
    return 0.6 + 0.2 * total / (1.5 * sides)


def measure(proposal: Proposal) -> Measurement:
    """The true accuracy and noise, in steps of 1/360; one cell in twenty fails."""
    cell = str(proposal.cell.canonical())
    if uniform("fails", cell) < 0.05:
        return Measurement("failed", {"seconds": 1.0}, "the loss is not finite")
    noise = 0.01 * (uniform("noise", cell, proposal.replica) - 0.5)
    accuracy = round(360 * (true_accuracy(proposal.cell) + noise)) / 360
    values = {
        "accuracy": accuracy,
        "validation_loss": 2 - accuracy + noise,
        "parameters": effort(proposal.cell),
    }
    return Measurement("done", values)


class Landscape:
    """The evaluator of which `measure` is one."""

    identity = ""

    def effort(self, cell: Cell) -> float:
        return effort(cell)

    def measure(self, proposal: Proposal, context: object) -> Measurement:
        return measure(proposal)


class SimulatedExecutor:
    """Workers that take random times; the process is killed after so many measurements."""

    def __init__(
        self,
        workers: int,
        seed: int,
        lives: float = float("inf"),
        evaluate: Callable[[Proposal], Measurement] = measure,
    ) -> None:
        self._workers, self._lives, self._evaluate = workers, lives, evaluate
        self._chance, self._order, self._clock = random.Random(seed), count(), 0.0
        self._waiting, self._running = deque[Task](), list[tuple[float, int, Task]]()

    def start(self, evaluator: object, data: object) -> None:
        pass

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def events(self) -> Iterator[Finished]:
        while self._waiting and len(self._running) < self._workers:
            end = self._clock + self._chance.expovariate(1.0)
            heapq.heappush(self._running, (end, next(self._order), self._waiting.popleft()))
        if self._running:
            if not self._lives:
                raise KilledError
            self._lives -= 1
            self._clock, _, task = heapq.heappop(self._running)
            yield Finished(task, self._evaluate(task.proposal))

    def drain(self) -> None:
        self._waiting.clear()

    def close(self) -> None:
        pass


def drive(
    strategy: Strategy,
    memo: Memo | None = None,
    *,
    workers: int = 1,
    seed: int = 0,
    lives: float = float("inf"),
    seldom: bool = False,
    stored: Mapping[int, Proposal] | None = None,
    evaluate: Callable[[Proposal], Measurement] = measure,
) -> list[Trial]:
    """All trials of a run, by a driver whose store is a dictionary.

    Args:
        memo: what is known, and will be.
        lives: measurements until the process is killed.
        seldom: whether all that is known is told before the strategy is asked again.
        stored: proposals that hold in place of the strategy's own, by number.
    """
    memo = {} if memo is None else memo
    executor = SimulatedExecutor(workers, seed, lives, evaluate)
    asked, trials, out = list[Proposal](), list[Trial](), set[Key]()
    while True:
        for own in strategy.ask():
            proposal = (stored or {}).get(len(asked), own)
            if proposal.key("") not in out | memo.keys():
                executor.submit(Task(len(asked), proposal, 0))
                out.add(proposal.key(""))
            asked.append(proposal)
        if len(trials) == len(asked):
            return trials
        while asked[len(trials)].key("") not in memo:
            for event in executor.events():
                memo[event.task.proposal.key("")] = event.measurement
        while len(trials) < len(asked) and (key := asked[len(trials)].key("")) in memo:
            trials.append(Trial(len(trials), asked[len(trials)], memo[key]))
            strategy.tell(trials[-1])
            if not seldom:
                break


def proposals_of(strategy: Strategy, measured: Callable[[int], Measurement]) -> list[Proposal]:
    """All proposals of a strategy whose trials depend on their numbers alone."""
    proposals, number = list(strategy.ask()), 0
    while number < len(proposals):
        strategy.tell(Trial(number, proposals[number], measured(number)))
        proposals += strategy.ask()
        number += 1
    return proposals


def done(accuracy: float, **values: float) -> Measurement:
    return Measurement("done", {"accuracy": accuracy, **values})
