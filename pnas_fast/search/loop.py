"""The progressive search: train, fit, expand, score, select, level by level (SPEC 2).

The loop is a deterministic function of configuration and trials. The store memoises trials, so
continuing a search that was stopped is running the loop again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pnas_fast.candidates import expand_batches, one_block_cells
from pnas_fast.runs.store import Level, Prediction, Trial, TrialStore
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.display import Display
from pnas_fast.search.evaluator import Evaluator
from pnas_fast.search.ranking import rank_correlation
from pnas_fast.search.writing import ReportWriter
from pnas_fast.space import Cell, Codes
from pnas_fast.surrogate import Surrogate, TopK, upper_confidence

Floats = npt.NDArray[np.float64]


class SearchError(ValueError):
    """A search that cannot go on; the message says why."""


@dataclass(slots=True)
class _Proposal:
    """The cells of one level, and what the surrogate expects of them."""

    codes: Codes
    candidates: int
    predicted: Floats | None = None
    surrogate_seconds: float = 0.0

    @property
    def cells(self) -> list[Cell]:
        return [Cell.from_codes(codes) for codes in self.codes]


@dataclass(slots=True)
class _History:
    """What the surrogate is fitted to: the finished children of each level."""

    codes: list[Codes] = field(default_factory=list)
    accuracies: list[Floats] = field(default_factory=list)


def run_levels(
    config: SearchConfig,
    store: TrialStore,
    evaluator: Evaluator,
    workers: int,
    display: Display,
    report: ReportWriter,
) -> None:
    """Search level by level up to ``config.blocks``, keeping store and report up to date.

    Raises:
        OSError: the report could not be written.
        SearchError: every child of a level failed.
    """
    surrogate = Surrogate(config.predictor, seed=config.seed, refit=config.refit)
    history = _History()
    codes = one_block_cells(config.operations)
    proposal = _Proposal(codes, len(codes))
    position = 0
    for level in range(1, config.blocks + 1):
        children = len(proposal.codes)
        later = config.beam * (config.blocks - level)
        display.level_started(level, config.blocks, proposal.candidates, children, later)
        trials = evaluator.evaluate(level, proposal.cells, position)
        position += children
        parents = _learn(surrogate, history, proposal, trials)
        record, predictions = _account(level, surrogate, proposal, trials)
        if evaluator.waited is not None:
            record = replace(record, workers=workers, waiting_seconds=evaluator.waited)
        store.finish_level(record, predictions)
        assert evaluator.best is not None
        assert evaluator.best.accuracy is not None
        display.level_finished(record, evaluator.best.accuracy)
        if level < config.blocks:
            proposal = _propose(surrogate, parents, config, display)
        report.write()


def _learn(surrogate: Surrogate, history: _History, proposal: _Proposal, trials: list[Trial]) -> Codes:
    """Fit the surrogate to all finished children; the codes of this level's are the next parents."""
    done = np.array([trial.accuracy is not None for trial in trials])
    if not done.any():
        raise SearchError(
            f"level {trials[0].level}: all {len(trials)} children failed, the first one: {trials[0].error}"
        )
    started = time.monotonic()
    codes: Codes = proposal.codes[done]
    history.codes.append(codes)
    history.accuracies.append(np.array([trial.accuracy for trial in trials if trial.accuracy is not None]))
    surrogate.fit(history.codes, history.accuracies)
    proposal.surrogate_seconds += time.monotonic() - started
    return codes


def _propose(surrogate: Surrogate, parents: Codes, config: SearchConfig, display: Display) -> _Proposal:
    """Expand the parents by every block, score the candidates batch by batch and keep the best K."""
    started = time.monotonic()
    level = parents.shape[1] + 1
    best = TopK(config.beam, level)
    scored = 0
    for batch in expand_batches(parents, config.operations):
        best.add(batch.codes, upper_confidence(surrogate.score(batch), config.kappa))
        scored += len(batch.codes)
        display.candidates_scored(level, config.blocks, scored, int(batch.parent[-1]) + 1, len(parents))
    # What is compared with measured accuracies is the ensemble's mean, whatever cells were chosen by.
    predicted = surrogate.predict(best.codes)
    return _Proposal(best.codes, scored, predicted, time.monotonic() - started)


def _account(
    level: int, surrogate: Surrogate, proposal: _Proposal, trials: list[Trial]
) -> tuple[Level, dict[str, Prediction]]:
    """How well the surrogate ranked a level before and after it saw its children."""
    measured = np.array([np.nan if trial.accuracy is None else trial.accuracy for trial in trials])
    before = proposal.predicted
    after = surrogate.predict(proposal.codes)
    record = Level(
        level=level,
        candidates=proposal.candidates,
        rho_before=None if before is None else rank_correlation(before, measured),
        rho_after=rank_correlation(after, measured),
        surrogate_seconds=proposal.surrogate_seconds,
    )
    predictions = {
        trial.cell: Prediction(None if before is None else float(before[index]), float(after[index]))
        for index, trial in enumerate(trials)
    }
    return record, predictions
