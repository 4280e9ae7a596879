"""Threads: one while fitting, one a chunk while scoring, and the caller's number of them comes back."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pnas_fast.candidates import one_block_cells
from pnas_fast.surrogate import PREDICTORS, Surrogate, ensemble, lstm_scoring, mlp_scoring
from pnas_fast.surrogate.fitting import Schedule
from pnas_fast.threads import torch_threads
from surrogate_data import NETWORKS, accuracy, random_candidates

CANDIDATES = random_candidates(np.random.default_rng(0), 9, 3)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "FRESH", Schedule(steps=8, batch=64, learning_rate=0.01))
    for module in (lstm_scoring, mlp_scoring):
        monkeypatch.setitem(module.ROWS, "cpu", 100)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    with torch_threads(3):
        yield


def fitted(predictor: str) -> Surrogate:
    surrogate = Surrogate(predictor, seed=0)
    surrogate.fit([one_block_cells()], [accuracy(one_block_cells())])
    return surrogate


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_the_number_of_threads_does_not_change_a_bit(predictor: str) -> None:
    scores = []
    for threads in (1, 2, 5):
        with torch_threads(threads):
            scores.append(fitted(predictor).score(CANDIDATES))
            assert torch.get_num_threads() == threads
    assert (scores[0] == scores[1]).all()
    assert (scores[0] == scores[2]).all()


@pytest.mark.parametrize("predictor", NETWORKS)
def test_fitting_and_scoring_work_on_one_thread_at_a_time(
    predictor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(module: object, name: str) -> None:
        work = getattr(module, name)

        def watch(*arguments: object) -> object:
            seen.append(torch.get_num_threads())
            return work(*arguments)

        monkeypatch.setattr(module, name, watch)

    watched(ensemble, "fit_members")
    for module in (lstm_scoring, mlp_scoring):
        watched(module, "_score_chunk")
    fitted(predictor).score(CANDIDATES)
    assert len(seen) > 10
    assert set(seen) == {1}


def test_the_number_of_threads_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate = fitted("mlp")

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(mlp_scoring, "_score_chunk", broken)
    monkeypatch.setattr(ensemble, "fit_members", broken)
    with pytest.raises(RuntimeError, match="broken"):
        surrogate.score(CANDIDATES)
    assert torch.get_num_threads() == 3
    with pytest.raises(RuntimeError, match="broken"):
        fitted("mlp")
    assert torch.get_num_threads() == 3
