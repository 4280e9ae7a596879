"""Strategies run without networks: a made-up landscape, and a driver with simulated workers."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Mapping
from itertools import count

from pnas_fast.protocols import Key, Measurement, Proposal, Strategy, Trial
from pnas_fast.space import CELL_INPUTS, Cell, effort

Memo = dict[Key, Measurement]


class KilledError(Exception):
    """The process is gone; what it had measured is in the memo."""


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


def measure(proposal: Proposal, steps: int = 360, failing: float = 0.05) -> Measurement:
    """The true accuracy and noise, in steps of one image; some cells fail."""
    cell = str(proposal.cell.canonical())
    if uniform("fails", cell) < failing:
        return Measurement("failed", {"seconds": 1.0}, "the loss is not finite")
    noise = 0.01 * (uniform("noise", cell, proposal.replica) - 0.5)
    accuracy = round(steps * (true_accuracy(proposal.cell) + noise)) / steps
    values = {
        "accuracy": accuracy,
        "validation_loss": 2 - accuracy + noise,
        "parameters": effort(proposal.cell),
    }
    return Measurement("done", values)


def drive(
    strategy: Strategy,
    memo: Memo | None = None,
    *,
    workers: int = 1,
    seed: int = 0,
    lives: float = float("inf"),
    seldom: bool = False,
    stored: Mapping[int, Proposal] | None = None,
    evaluate=measure,
) -> list[Trial]:
    """All trials of a run whose workers take random times.

    Args:
        memo: what is known, and will be.
        lives: measurements until the process is killed.
        seldom: whether all that is known is told before the strategy is asked again.
        stored: proposals that hold in place of the strategy's own, by number.
    """
    memo = {} if memo is None else memo
    chance, order, clock = random.Random(seed), count(), 0.0
    asked, trials = list[Proposal](), list[Trial]()
    waiting, running, out = deque[Proposal](), list[tuple[float, int, Proposal]](), set[Key]()
    while True:
        for own in strategy.ask():
            proposal = (stored or {}).get(len(asked), own)
            asked.append(proposal)
            if proposal.key("") not in memo and proposal.key("") not in out:
                waiting.append(proposal)
                out.add(proposal.key(""))
        if len(trials) == len(asked):
            return trials
        while (key := asked[len(trials)].key("")) not in memo:
            while waiting and len(running) < workers:
                heapq.heappush(running, (clock + chance.expovariate(1.0), next(order), waiting.popleft()))
            clock, _, finished = heapq.heappop(running)
            if not lives:
                raise KilledError
            lives -= 1
            memo[finished.key("")] = evaluate(finished)
        while len(trials) < len(asked) and (key := asked[len(trials)].key("")) in memo:
            trials.append(Trial(len(trials), asked[len(trials)], memo[key]))
            strategy.tell(trials[-1])
            if not seldom:
                break
