"""BANANAS: train what a surrogate, fitted anew each round, thinks of mutations (White et al., AAAI 2021)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from pnas_fast.candidates import canonical_keys
from pnas_fast.counting import count_distinct
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Emit, Noted, Proposal, StrategyError, Trial
from pnas_fast.space import Codes
from pnas_fast.strategies.acquisition import STREAM, Floats, mutants, thompson
from pnas_fast.strategies.budgeted import Budgeted
from pnas_fast.strategies.random import draw_new
from pnas_fast.strategies.targets import STRETCHED
from pnas_fast.surrogate import Surrogate, rank_correlation, select_top
from pnas_fast.threads import torch_threads

INITIAL = 20
"""Cells drawn before the first round."""

ROUND = 10
"""Cells that a round proposes."""

PARENTS = 10
"""The best results that a round's candidates are mutations of."""


@dataclass(frozen=True, slots=True)
class _Round:
    """Proposals ``first`` … ``end`` − 1, and how they were chosen."""

    turn: int
    first: int
    end: int
    fitted: int
    candidates: int
    seconds: float


class Bananas(Budgeted):
    """Rounds of `ROUND` cells, chosen by Thompson sampling from mutations of the best, with a fixed lag.

    The first `INITIAL` proposals are random search's. A round that begins with proposal s sees exactly the
    results 0 … s − lag − 1, whichever of its proposals it is: it fits a new surrogate to those that did not
    fail, draws ``candidates`` mutations of the `PARENTS` best of them, and proposes those with the highest
    draws from N(mean, deviation) of the surrogate's members. A round for which there are no results yet, or
    too few mutations that are new, is filled up with random search's cells.

    Keeps a note ``round`` when the last result of a round is told: ``turn``, the numbers ``first`` and
    ``children``, how many results were ``fitted`` and ``candidates`` scored, the ``strategy_seconds`` that
    choosing took, and Spearman's ``rho`` of what was predicted and measured.

    Args:
        blocks: of each cell.
        operations: that cells are made of.
        budget: children to train, failed ones included; a space of fewer cells is trained whole.
        epochs: of each child.
        seed: of all draws and of the surrogate, 0 or more.
        lag: results that a round does not wait for.
        candidates: scored in each round, `ROUND` and more.
        predictor: as of `Surrogate`.
        emit: is told the notes.
        aims: whose limits count; its costs do not. The best are those that keep them, then those that break
            them least; of mutations those are candidates that keep them, or break them less than the parent.

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: a budget less than 1, a lag less than 0, or too few candidates.
        SurrogateError: an unknown predictor.
    """

    def __init__(
        self, blocks: int, operations: Sequence[str], budget: int, epochs: int, seed: int, lag: int = 16,
        candidates: int = 200, predictor: str = "mlp", emit: Emit = lambda event: None,
        aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        for name, value, least in (("lag", lag, 0), ("candidates", candidates, ROUND)):
            if value < least:
                raise StrategyError(f"{name} {value}, allowed is {least} and more")
        super().__init__(min(budget, count_distinct(blocks, operations)))
        self._blocks, self._operations, self._candidates = blocks, tuple(operations), candidates
        self._epochs, self._seed, self._lag, self._emit, self._aims = epochs, seed, lag, emit, aims
        self._surrogate = Surrogate(predictor, seed=seed, refit="scratch")
        self._told = list[Trial]()
        self._turns = 0
        self._rounds = deque[_Round]()
        self._advance()

    def tell(self, trial: Trial) -> None:
        """Remember a trial; where it is the last that a round waits for, the round is proposed.

        Raises:
            StrategyError: too many children failed one after another.
        """
        super().tell(trial)
        self._told.append(trial)
        while self._rounds and self._rounds[0].end <= len(self._told):
            self._note(self._rounds.popleft())
        self._advance()

    def _advance(self) -> None:
        """Propose all that may see just what was told."""
        self._fill(INITIAL, self._drawn)
        while self._asked.open and len(self._asked) <= len(self._told) + self._lag:
            self._begin_round(len(self._asked))

    def _begin_round(self, first: int) -> None:
        started = time.monotonic()
        seen = [trial for trial in self._told[: max(first - self._lag, 0)] if isfinite(trial.accuracy)]
        chosen, candidates = self._choose(seen) if seen else ([], 0)
        waiting = iter(chosen)
        self._fill(first + ROUND, lambda: next(waiting, None) or self._drawn())
        seconds = time.monotonic() - started
        self._rounds.append(_Round(self._turns, first, len(self._asked), len(seen), candidates, seconds))
        self._turns += 1

    def _choose(self, seen: Sequence[Trial]) -> tuple[list[Proposal], int]:
        """The best candidates by Thompson sampling, the best first, and how many candidates there were."""
        parents = sorted(seen, key=self._aims.rank, reverse=True)[:PARENTS]
        rng = np.random.default_rng([self._seed, STREAM, self._turns])
        found = mutants(parents, self._operations, self._candidates, self._asked, rng, self._aims)
        if not found:
            return [], 0
        cells = list(found)
        codes = np.array([cell.codes for cell in cells])
        predictions = self._predict(seen, codes)
        drawn = thompson(cells, predictions, self._seed, self._turns)
        best = select_top(drawn, canonical_keys(codes), ROUND)
        mean = predictions.mean(axis=0)
        notes = [{"parent": found[cells[index]], "predicted": float(mean[index])} for index in best]
        proposals = [
            Proposal(cells[index], self._epochs, note=note) for index, note in zip(best, notes, strict=True)
        ]
        return proposals, len(cells)

    def _predict(self, seen: Sequence[Trial], codes: Codes) -> Floats:
        """Each member's prediction (E, M) of cells, after fitting the surrogate to what was seen.

        It learns accuracies stretched to `STRETCHED`. As they are they may be nearly equal, or so low that
        the sigmoid of its output is flat by the time it gets there, and nothing more is learned.
        """
        accuracies = np.array([trial.accuracy for trial in seen])
        low = accuracies.min()
        slope = (STRETCHED[1] - STRETCHED[0]) / max(float(np.ptp(accuracies)), 1e-9)
        stretched = STRETCHED[0] + slope * (accuracies - low)
        self._surrogate.fit([np.array([trial.cell.canonical().codes for trial in seen])], [stretched])
        with torch_threads(1):  # so that their number changes no bit
            predictions = self._surrogate.predict_members(codes)
        predicted: Floats = low + (predictions - STRETCHED[0]) / slope
        return predicted

    def _drawn(self) -> Proposal:
        cell = draw_new(self._blocks, self._operations, self._seed, self._asked, self._aims)
        return Proposal(cell, self._epochs)

    def _note(self, done: _Round) -> None:
        trials = self._told[done.first : done.end]
        predicted = np.array([trial.proposal.note.get("predicted", nan) for trial in trials], np.float64)
        measured = np.where(np.isfinite(predicted), [trial.accuracy for trial in trials], nan)
        values = {
            "turn": done.turn,
            "first": done.first,
            "children": len(trials),
            "fitted": done.fitted,
            "candidates": done.candidates,
            "strategy_seconds": done.seconds,
            "rho": rank_correlation(predicted, measured),
        }
        self._emit(Noted("round", values, kept=True))
