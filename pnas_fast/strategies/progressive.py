"""Progressive search: train one-block cells, then level by level the best that a surrogate expects.

Liu et al., "Progressive Neural Architecture Search", ECCV 2018, algorithm 1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from pnas_fast.candidates import one_block_cells
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Emit, Noted, Proposal, Said, StrategyError, Trial
from pnas_fast.space import Cell, Codes
from pnas_fast.strategies.aimed_growing import grow_by
from pnas_fast.strategies.first_level import balanced
from pnas_fast.strategies.targets import learned_value, targets
from pnas_fast.surrogate import Grown, Growth, Surrogate, grow, rank_correlation
from pnas_fast.surrogate.checks import Floats


class Progressive:
    """Proposes a level whole, and the next one when the last trial of a level was told.

    Its first level are all one-block cells, as in the paper, or ``growth.first`` of them (`balanced`). Those
    left out are grown from like the others.

    Cells keep the block order in which they were grown, so that candidates share their parent's prefix.
    Notes: ``begun`` and ``scored`` for the moment, and ``level``, which is kept.

    The surrogate learns accuracies, or with ``learn`` "loss" targets made from validation losses (`targets`).
    What it predicts then, noted with proposals and levels, are scores in those targets' scale, which is
    another one at each level. ρ is that with accuracies either way.

    With costs or limits among its ``aims``, or where it is to ``explore``, cells are chosen as `grow_by`
    chooses them, and cells of one block that break a limit are left out, unless all do. Where all candidates
    of a level break one, the search ends with what it has, or if nothing that finished keeps the limits, goes
    on with those that break them least. Either is said.
    """

    def __init__(
        self, growth: Growth, epochs: int, seed: int, emit: Emit = lambda event: None,
        learn: str = "accuracy", aims: Aims = ACCURACY_ALONE, explore: float = 0.0,
    ) -> None:  # fmt: skip
        self._growth, self._epochs, self._emit, self._learn_from = growth, epochs, emit, learn
        self._surrogate = Surrogate(growth.predictor, seed=seed, refit=growth.refit)
        self._history: tuple[list[Codes], list[Floats]] = ([], [])
        self._seconds = 0.0
        self._ready: list[Proposal] = []
        self._told: list[Trial] = []
        self._aims, self._explore = aims, explore
        self._fits, self._said, self._dropped = True, False, 0
        self._kept, self._ended, self._number = False, False, 0
        self._every = self._fitting(one_block_cells(growth.operations))
        codes = balanced(self._every, growth.first or len(self._every), seed)
        self._first = len(codes)
        self._begin(codes, len(self._every), np.full(len(codes), np.nan))

    @property
    def planned(self) -> int:
        """Those of one block, and K a level after that."""
        if self._ended:
            return self._number
        return self._first + (self._growth.blocks - 1) * self._growth.beam

    def ask(self) -> Sequence[Proposal]:
        """The cells of a level, once."""
        ready, self._ready = self._ready, []
        if ready:
            if not self._fits and not self._said:
                self._said = True
                self._say("what breaks it least is trained", level=self._level)
            self._note("begun")
        return ready

    def tell(self, trial: Trial) -> None:
        """Learn from a child; the last of a level fits the surrogate and chooses the next level.

        Raises:
            StrategyError: every child of a level failed, or one lacks the validation loss that is learned.
        """
        if trial.done:
            learned_value(trial, self._learn_from)  # at once, not after a level's trainings
        self._told.append(trial)
        self._number += 1
        self._kept = self._kept or (trial.done and not self._aims.violation(trial.cell))
        if len(self._told) < self._children:
            return
        started = time.monotonic()
        self._learn()
        seconds = self._seconds + self._lap(started)
        self._note("level", kept=True, **self._ranking(), surrogate_seconds=seconds)
        if self._level < self._growth.blocks:
            started = time.monotonic()
            grown = self._grow(self._parents())
            self._ended = self._kept and not self._fits
            if self._ended:
                self._say(f"the search ends with cells of level {self._level}", self._level + 1)
                return
            self._begin(grown.codes, grown.candidates, grown.predicted)
            self._seconds = self._lap(started)

    def _fitting(self, codes: Codes) -> Codes:
        """Those cells of the first level that keep limits; all where none does."""
        holding = self._aims if self._growth.blocks == 1 else self._aims.growing
        fits = np.flatnonzero(holding.violations(codes) == 0)
        if not len(fits):
            self._fits = False
            return codes
        self._dropped = len(codes) - len(fits)
        fitting: Codes = codes[fits]
        return fitting

    def _grow(self, parents: Codes) -> Grown:
        scored = partial(self._scored, len(parents))
        if not self._aims and not self._explore:
            return grow(parents, self._surrogate, self._growth, scored)
        grown, self._dropped, self._fits = grow_by(
            parents, self._surrogate, self._growth, self._aims, self._explore, scored
        )
        return grown

    def _say(self, what: str, level: int) -> None:
        """Say that no cell of a level keeps the limits, and what follows."""
        limits = " and ".join(str(bound) for _, bound in self._aims.limits)
        self._emit(Said(f"NO cell of level {level} keeps {limits}: {what}"))

    def _begin(self, codes: Codes, candidates: int, predicted: Floats) -> None:
        self._level, self._candidates, self._children = int(codes.shape[1]), candidates, len(codes)
        self._told = []
        notes = [{"predicted": float(value)} if np.isfinite(value) else {} for value in predicted]
        self._ready = [
            Proposal(Cell.from_codes(row), self._epochs, note={"level": self._level, **note})
            for row, note in zip(codes, notes, strict=True)
        ]

    def _learn(self) -> None:
        """Fit the surrogate to a level's finished children too."""
        done = [trial for trial in self._told if trial.done]
        if not done:
            found = f"level {self._level}: all {self._children} children failed"
            raise StrategyError(f"{found}, the first one: {self._told[0].measurement.error}")
        codes = np.array([trial.cell.codes for trial in done])
        self._history[0].append(codes)
        self._history[1].append(np.array([learned_value(trial, self._learn_from) for trial in done]))
        self._surrogate.fit(self._history[0], targets(self._history[1], self._learn_from))

    def _parents(self) -> Codes:
        """What the next level grows from: the finished cells, of one block all but the failed."""
        if self._level > 1:
            return self._history[0][-1]
        failed = {trial.cell for trial in self._told if not trial.done}
        return np.array([codes for codes in self._every if Cell.from_codes(codes) not in failed])

    def _ranking(self) -> dict[str, object]:
        """How well the surrogate ranked the level before and after it saw its children."""
        measured = np.array([trial.accuracy for trial in self._told])
        before = np.array([trial.proposal.note.get("predicted", np.nan) for trial in self._told], np.float64)
        after = self._surrogate.predict(np.array([trial.cell.codes for trial in self._told]))
        return {
            "rho_before": rank_correlation(before, measured) if np.isfinite(before).all() else None,
            "rho_after": rank_correlation(after, measured),
            "predicted_after": {
                str(trial.number): float(value) for trial, value in zip(self._told, after, strict=True)
            },
        }

    def _scored(self, of: int, candidates: int, parents: int) -> None:
        values = {"level": self._level + 1, "candidates": candidates, "done": parents, "of": of}
        self._emit(Noted("scored", values))

    def _note(self, name: str, *, kept: bool = False, **values: object) -> None:
        counts = {"candidates": self._candidates, "children": self._children, "levels": self._growth.blocks}
        if self._aims.limits:
            counts["over_limit"] = self._dropped
        self._emit(Noted(name, {"level": self._level, **counts, **values}, kept))

    @staticmethod
    def _lap(started: float) -> float:
        return time.monotonic() - started
