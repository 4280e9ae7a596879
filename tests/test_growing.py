"""What a level proposes for the next: the best of all candidates, found batch by batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pnas_fast.candidates import Candidates, canonical_keys, expand, expand_batches
from pnas_fast.space import Codes
from pnas_fast.surrogate import Grown, Growth, growing, select_top, upper_confidence
from surrogate_data import random_cells

GROWTH = Growth(blocks=5, beam=40, operations=("sep3x3", "identity", "max_pool3x3"))
PARENTS = random_cells(np.random.default_rng(3), 30, 2)


class MadeUpSurrogate:
    """Few different scores, so that many candidates are tied at the edge of the beam."""

    def score(self, candidates: Candidates) -> npt.NDArray[np.float64]:
        digits = candidates.codes.astype(np.int64).reshape(len(candidates.codes), -1)
        weights = np.arange(1, 1 + digits.shape[1]) ** 2
        return np.stack([(digits @ weights * member) % 7 / 7 for member in (1, 3, 4)])

    def predict(self, codes: Codes) -> npt.NDArray[np.float64]:
        scores = self.score(Candidates(codes, np.zeros(len(codes), np.int32)))
        return np.asarray(scores.mean(axis=0))


def grown(kappa: float, told: list[tuple[int, int]] | None = None) -> Grown:
    surrogate: Any = MadeUpSurrogate()
    scored = [] if told is None else told
    return growing.grow(PARENTS, surrogate, replace(GROWTH, kappa=kappa), lambda *now: scored.append(now))


@pytest.mark.parametrize("kappa", [0.0, 2.0])
@pytest.mark.parametrize("batch", [1, 700, 1 << 18])
def test_batches_propose_what_all_candidates_at_once_would(
    kappa: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "expand_batches", partial(expand_batches, batch=batch))
    everything = expand(PARENTS, GROWTH.operations)
    scores = MadeUpSurrogate().score(everything)
    chosen = select_top(upper_confidence(scores, kappa), canonical_keys(everything.codes), GROWTH.beam)
    found = grown(kappa)
    assert (found.codes == everything.codes[chosen]).all()
    assert found.candidates == len(everything.codes)
    # Exploring or not, what is compared with measured accuracies is the members' mean.
    assert (found.predicted == scores.mean(axis=0)[chosen]).all()


def test_exploration_changes_the_choice() -> None:
    assert (grown(0.0).codes != grown(2.0).codes).any()


def test_it_says_how_far_scoring_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "expand_batches", partial(expand_batches, batch=700))
    told = list[tuple[int, int]]()
    found = grown(0.0, told)
    assert len(told) > 3
    counts = [candidates for candidates, _ in told]
    assert counts == sorted(set(counts))
    assert told[-1] == (found.candidates, len(PARENTS))
