"""The surrogate learns, is reproducible, and refuses what it cannot use."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pnas_fast.candidates import one_block_cells
from pnas_fast.surrogate import PREDICTORS, Surrogate, SurrogateError, ensemble
from pnas_fast.surrogate.fitting import Schedule
from surrogate_data import NETWORKS, accuracy, fitted, random_cells, scores_of_all_predictors


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of a few steps, for tests of what is not how well they fit."""
    monkeypatch.setattr(ensemble, "FRESH", Schedule(steps=12, batch=64, learning_rate=0.01))
    monkeypatch.setattr(ensemble, "FINETUNE", Schedule(steps=8, batch=64, learning_rate=0.002))


@pytest.mark.parametrize("predictor", NETWORKS)
def test_ranks_cells_it_has_not_seen_and_the_mean_beats_the_members(
    predictor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensemble, "FRESH", replace(ensemble.FRESH, steps=250))
    rng = np.random.default_rng(7)
    codes = [one_block_cells(), random_cells(rng, 120, 2)]
    surrogate = Surrogate(predictor, seed=3)
    surrogate.fit(codes, [accuracy(group) for group in codes])
    for unseen in (random_cells(rng, 300, 2), random_cells(rng, 300, 3)):
        truth = accuracy(unseen)
        members = surrogate.predict_members(unseen)
        mean = surrogate.predict(unseen)
        assert spearmanr(mean, truth).statistic > 0.55
        assert np.abs(mean - truth).mean() <= np.abs(members - truth).mean()
        assert np.abs(mean - truth).mean() < 0.95 * np.abs(np.median(truth) - truth).mean()


def test_fits_the_trials_it_has_seen() -> None:
    codes = one_block_cells()
    truth = accuracy(codes)
    surrogate = Surrogate("mlp", seed=0)
    surrogate.fit([codes], [truth])
    assert np.abs(surrogate.predict(codes) - truth).mean() < 0.2 * np.abs(np.median(truth) - truth).mean()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_members_differ(predictor: str) -> None:
    members = fitted(predictor).predict_members(one_block_cells())
    assert members.shape == (5, 136)
    assert len(np.unique(members.mean(axis=1))) == 5
    assert (members.std(axis=0) > 0).all()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_member_does_not_see_its_own_fold(predictor: str) -> None:
    """Turning one trial from worst to best changes the four members fitted to it and not the fifth."""
    codes = one_block_cells()[:30]
    values = accuracy(codes)
    predictions = []
    for extreme in (0.0, 1.0):
        values[11] = extreme
        surrogate = Surrogate(predictor, seed=5)
        surrogate.fit([codes], [values])
        predictions.append(surrogate.predict_members(codes))
    changed = (predictions[0] != predictions[1]).any(axis=1)
    assert changed.sum() == 4


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("predictor", NETWORKS)
@pytest.mark.parametrize("trials", [1, 2, 4, 5, 6])
def test_fits_very_few_trials(predictor: str, trials: int) -> None:
    codes = random_cells(np.random.default_rng(trials), trials, 2)
    surrogate = Surrogate(predictor, seed=0)
    surrogate.fit([codes], [np.full(trials, 0.3)])
    before = surrogate.predict(codes)
    surrogate.fit([codes], [np.full(trials, 0.3)])
    after = surrogate.predict(codes)
    assert np.isfinite(after).all()
    assert np.abs(after - 0.3).mean() < np.abs(before - 0.3).mean()


@pytest.mark.usefixtures("brief")
def test_a_group_without_trials_is_no_trial() -> None:
    codes = one_block_cells()
    empty = np.empty((0, 2, 4), np.int8)
    one, two = Surrogate("mlp", seed=0), Surrogate("mlp", seed=0)
    one.fit([codes], [accuracy(codes)])
    two.fit([codes, empty], [accuracy(codes), np.empty(0)])
    assert (one.predict(codes) == two.predict(codes)).all()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("predictor", NETWORKS)
def test_fine_tuning_starts_from_the_weights_and_scratch_does_not(predictor: str) -> None:
    """Wrong accuracies first, then right ones: only fine-tuning still shows the wrong ones."""
    codes = one_block_cells()
    errors = {}
    for refit in ("finetune", "scratch"):
        surrogate = Surrogate(predictor, seed=1, refit=refit)
        surrogate.fit([codes], [np.full(136, 0.1)])
        wrong = surrogate.predict(codes).mean()
        surrogate.fit([codes], [np.full(136, 0.86)])
        errors[refit] = abs(surrogate.predict(codes).mean() - wrong), abs(wrong - 0.86)
    moved, distance = errors["finetune"]
    assert moved < 0.5 * distance
    moved, distance = errors["scratch"]
    assert moved > 0.8 * distance


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_torchs_global_generator_has_no_say_and_is_left_alone(predictor: str) -> None:
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        surrogate = fitted(predictor)
        assert (torch.get_rng_state() == state).all()
        results.append(surrogate.predict_members(one_block_cells()))
    assert (results[0] == results[1]).all()


@pytest.mark.usefixtures("brief")
def test_another_seed_gives_another_surrogate() -> None:
    codes = one_block_cells()
    predictions = []
    for seed in (0, 1):
        surrogate = Surrogate("mlp", seed=seed)
        surrogate.fit([codes], [accuracy(codes)])
        predictions.append(surrogate.predict(codes))
    assert (predictions[0] != predictions[1]).any()


PROGRAM = """
from pnas_fast.surrogate import ensemble
from surrogate_data import scores_of_all_predictors
ensemble.FRESH = ensemble.Schedule(steps=12, batch=64, learning_rate=0.01)
print(scores_of_all_predictors().tobytes().hex())
"""


@pytest.mark.usefixtures("brief")
def test_a_fresh_process_agrees_to_the_bit() -> None:
    other_hashes = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    fresh = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONHASHSEED": other_hashes},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == scores_of_all_predictors().tobytes().hex()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictor": "tree"}, "predictor is 'tree', allowed are mlp lstm paths"),
        ({"refit": "never"}, "refit is 'never', allowed are finetune scratch"),
        ({"seed": -1}, "seed is -1, allowed are 0 and more"),
        ({"members": 1}, "members is 1, allowed are 2 and more"),
    ],
)
def test_refuses_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SurrogateError, match=message):
        Surrogate(**{"predictor": "mlp", "seed": 0} | arguments)  # type: ignore[arg-type]


def test_refuses_accuracies_that_are_none() -> None:
    codes = one_block_cells()
    for wrong in (np.nan, np.inf, -0.1, 1.1):
        values = accuracy(codes)
        values[17] = wrong
        with pytest.raises(SurrogateError, match=r"accuracy 17 of group 1 is .*, allowed are 0 to 1"):
            Surrogate("mlp", seed=0).fit([codes, codes], [accuracy(codes), values])
    with pytest.raises(SurrogateError, match=r"accuracies of group 0 have shape \(135,\)"):
        Surrogate("mlp", seed=0).fit([codes], [accuracy(codes)[1:]])
    with pytest.raises(SurrogateError, match="1 groups of codes but 2 of accuracies"):
        Surrogate("mlp", seed=0).fit([codes], [accuracy(codes)] * 2)
    with pytest.raises(SurrogateError, match="no trials to fit"):
        Surrogate("mlp", seed=0).fit([codes[:0]], [np.empty(0)])


def test_refuses_codes() -> None:
    codes = one_block_cells()
    surrogate = Surrogate("mlp", seed=0)
    values = accuracy(codes)
    with pytest.raises(SurrogateError, match="codes are int64, allowed is an int8 array"):
        surrogate.fit([codes.astype(np.int64)], [values])
    with pytest.raises(SurrogateError, match="codes are list"):
        surrogate.fit([codes.tolist()], [values])
    with pytest.raises(SurrogateError, match=r"codes have shape \(136, 4\)"):
        surrogate.fit([codes[:, 0]], [values])
    with pytest.raises(SurrogateError, match=r"codes have shape \(136, 6, 4\)"):
        surrogate.fit([np.repeat(codes, 6, axis=1)], [values])
    for column, wrong, name in ((0, 2, "in1"), (1, 8, "op1"), (2, -1, "in2"), (3, 9, "op2")):
        bad = codes.copy()
        bad[9, 0, column] = wrong
        with pytest.raises(SurrogateError, match=f"row 9, block 0: {name} is {wrong}, allowed are 0 to"):
            surrogate.fit([bad], [values])


def test_refuses_to_predict_before_it_was_fitted() -> None:
    with pytest.raises(SurrogateError, match="fit it first"):
        Surrogate("mlp", seed=0).predict(one_block_cells())
