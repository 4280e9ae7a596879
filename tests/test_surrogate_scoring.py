"""Scoring by shared prefixes equals plain scoring."""

import numpy as np
import pytest
import torch

from pnas_fast.candidates import Candidates, expand, one_block_cells
from pnas_fast.surrogate import PREDICTORS, Surrogate, SurrogateError, ensemble, lstm_scoring, mlp_scoring
from pnas_fast.surrogate.fitting import Schedule
from surrogate_data import accuracy, fitted, random_candidates, random_cells


@pytest.fixture(scope="module", params=PREDICTORS)
def surrogate(request: pytest.FixtureRequest) -> Surrogate:
    """Fitted briefly, then with weights enlarged so that a swapped gate or column shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "FRESH", Schedule(steps=20, batch=64, learning_rate=0.01))
        made = fitted(request.param)
    if not isinstance(made._model, torch.nn.Module):
        return made
    factor = {"mlp": 1.3, "lstm": 3.0}[request.param]
    with torch.no_grad():
        for name, parameter in made._model.named_parameters():
            parameter.mul_(1 if name == "output_bias" else factor)
    return made


def scored(codes: np.ndarray) -> Candidates:
    return Candidates(codes, np.zeros(len(codes), np.int32))


@pytest.mark.parametrize("blocks", [2, 3, 4, 5])
def test_equals_plain_scoring(surrogate: Surrogate, blocks: int) -> None:
    candidates = random_candidates(np.random.default_rng(blocks), 5, blocks)
    plain = surrogate.predict_members(candidates.codes)
    fast = surrogate.score(candidates)
    assert fast.dtype == np.float64
    assert fast.shape == (5, len(candidates.codes))
    assert plain.std(axis=1).min() > 0.005
    np.testing.assert_allclose(fast, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_any_device_fits_and_scores(predictor: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "FRESH", Schedule(steps=20, batch=64, learning_rate=0.01))
    codes = one_block_cells()
    surrogate = Surrogate(predictor, seed=0, device=device)
    surrogate.fit([codes], [accuracy(codes)])
    candidates = random_candidates(np.random.default_rng(0), 3, 3)
    plain = surrogate.predict_members(candidates.codes)
    np.testing.assert_allclose(surrogate.score(candidates), plain, atol=1e-5, rtol=0)


def test_cells_without_parents_are_scored_too(surrogate: Surrogate) -> None:
    codes = one_block_cells()
    np.testing.assert_allclose(surrogate.score(scored(codes)), surrogate.predict_members(codes), atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_any_codes_in_any_order_are_scored_right(surrogate: Surrogate, blocks: int) -> None:
    """Unsorted sides, a parent for each candidate, repeated parents and candidates."""
    rng = np.random.default_rng(blocks)
    codes = random_cells(rng, 300, blocks)
    codes = codes[rng.integers(0, len(codes), 600)]
    np.testing.assert_allclose(surrogate.score(scored(codes)), surrogate.predict_members(codes), atol=1e-5)


def test_few_operations(surrogate: Surrogate) -> None:
    parents = random_cells(np.random.default_rng(0), 9, 2)
    candidates = expand(parents, ("sep3x3", "identity", "dil_conv3x3"))
    np.testing.assert_allclose(
        surrogate.score(candidates), surrogate.predict_members(candidates.codes), atol=1e-5
    )


@pytest.mark.parametrize(("rows", "prefixes"), [(1, 1), (97, 7), (1000, 64)])
def test_chunks_of_any_size_agree(
    surrogate: Surrogate, rows: int, prefixes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = random_candidates(np.random.default_rng(4), 2, 3).codes[100:500]
    whole = surrogate.score(scored(codes))
    for module in (lstm_scoring, mlp_scoring):
        monkeypatch.setitem(module.ROWS, "cpu", rows)
    monkeypatch.setitem(lstm_scoring.PREFIXES, "cpu", prefixes)
    np.testing.assert_allclose(surrogate.score(scored(codes)), whole, atol=1e-6, rtol=0)


def test_no_candidates(surrogate: Surrogate) -> None:
    empty = np.empty((0, 3, 4), np.int8)
    assert surrogate.score(scored(empty)).shape == (5, 0)
    assert surrogate.predict(empty).shape == (0,)


def test_codes_outside_the_space_are_refused(surrogate: Surrogate) -> None:
    codes = random_cells(np.random.default_rng(1), 20, 4)
    codes[13, 2, 2] = 4
    with pytest.raises(SurrogateError, match="codes row 13, block 2: in2 is 4, allowed are 0 to 3"):
        surrogate.score(scored(codes))
    codes[13, 2] = 0
    codes[7, 1, 0] = 3  # itself
    with pytest.raises(SurrogateError, match="codes row 7, block 1: in1 is 3, allowed are 0 to 2"):
        surrogate.score(scored(codes))
    with pytest.raises(SurrogateError, match="codes are int32"):
        surrogate.score(scored(codes.astype(np.int32)))
