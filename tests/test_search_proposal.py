"""What a level proposes for the next: the best of all candidates, found batch by batch."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pnas_fast import SearchConfig
from pnas_fast.candidates import Candidates, canonical_keys, expand, expand_batches
from pnas_fast.search import loop
from pnas_fast.search.display import SilentDisplay
from pnas_fast.space import Codes
from pnas_fast.surrogate import select_top, upper_confidence
from surrogate_data import random_cells

CONFIG = SearchConfig(beam=40, operations=("sep3x3", "identity", "max_pool3x3"))
PARENTS = random_cells(np.random.default_rng(3), 30, 2)


class MadeUpSurrogate:
    """Few different scores, so that many candidates are tied at the edge of the beam."""

    def score(self, candidates: Candidates) -> npt.NDArray[np.float64]:
        digits = candidates.codes.astype(np.int64).reshape(len(candidates.codes), -1)
        weights = np.arange(1, 1 + digits.shape[1]) ** 2
        return np.stack([(digits @ weights * member) % 7 / 7 for member in (1, 3, 4)])

    def predict(self, codes: Codes) -> npt.NDArray[np.float64]:
        return self.score(Candidates(codes, np.zeros(len(codes), np.int32))).mean(axis=0)


class Watcher(SilentDisplay):
    """Remembers how far scoring was each time it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, ...]] = []

    def candidates_scored(self, *told: int) -> None:
        self.told.append(told)


def propose(kappa: float, display: SilentDisplay) -> Any:
    surrogate: Any = MadeUpSurrogate()
    return loop._propose(surrogate, PARENTS, replace(CONFIG, kappa=kappa), display)


@pytest.mark.parametrize("kappa", [0.0, 2.0])
@pytest.mark.parametrize("batch", [1, 700, 1 << 18])
def test_batches_propose_what_all_candidates_at_once_would(
    kappa: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "expand_batches", partial(expand_batches, batch=batch))
    everything = expand(PARENTS, CONFIG.operations)
    scores = MadeUpSurrogate().score(everything)
    chosen = select_top(upper_confidence(scores, kappa), canonical_keys(everything.codes), CONFIG.beam)
    proposal = propose(kappa, SilentDisplay())
    assert (proposal.codes == everything.codes[chosen]).all()
    assert proposal.candidates == len(everything.codes)
    # Exploring or not, what is compared with measured accuracies is the members' mean.
    assert (proposal.predicted == scores.mean(axis=0)[chosen]).all()


def test_exploration_changes_the_choice() -> None:
    assert (propose(0.0, SilentDisplay()).codes != propose(2.0, SilentDisplay()).codes).any()


def test_it_says_how_far_scoring_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "expand_batches", partial(expand_batches, batch=700))
    display = Watcher()
    proposal = propose(0.0, display)
    assert len(display.told) > 3
    assert {told[:2] for told in display.told} == {(3, CONFIG.blocks)}
    counts = [told[2] for told in display.told]
    assert counts == sorted(set(counts))
    assert display.told[-1][2:] == (proposal.candidates, len(PARENTS), len(PARENTS))
