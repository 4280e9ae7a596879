"""Folds: even, different, and stable while trials are added; gradients of the loss."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import relative_error
from pnas_fast.surrogate.fitting import Trials, folds, member_losses, member_weights
from pnas_fast.surrogate.mlp import COLUMNS, MLPEnsemble, token_shares
from pnas_fast.surrogate.mlp_gradients import MLPGradients
from poison import poison_new_tensors
from surrogate_data import accuracy, random_cells

seeds = st.integers(0, 2**31 - 1)


@given(st.integers(0, 1500), st.integers(0, 200), seeds)
def test_a_trial_keeps_its_fold_when_others_are_added(trials: int, more: int, seed: int) -> None:
    assert (folds(trials + more, 5, seed)[:trials] == folds(trials, 5, seed)).all()


@given(st.integers(5, 1500), st.integers(2, 7), seeds)
def test_folds_are_even_and_members_see_different_trials(trials: int, members: int, seed: int) -> None:
    sizes = np.bincount(folds(trials, members, seed), minlength=members)
    assert np.ptp(sizes) <= 1
    if trials >= members:
        weights = member_weights(trials, members, seed)
        assert (weights.sum(axis=0) == members - 1).all()
        assert (weights.sum(axis=1) == trials - sizes).all()
        assert len(np.unique(weights, axis=0)) == members


def test_folds_depend_on_the_seed() -> None:
    assert (folds(100, 5, 0) != folds(100, 5, 1)).any()


@pytest.mark.parametrize("trials", [1, 2, 3, 4])
def test_fewer_trials_than_members_serve_every_member(trials: int) -> None:
    assert (member_weights(trials, 5, 0) == 1).all()


def test_trials_of_mixed_sizes_are_picked_larger_first() -> None:
    rng = np.random.default_rng(0)
    codes = [random_cells(rng, 6, blocks) for blocks in (2, 5, 1)]
    trials = Trials.gather(codes, [accuracy(group) for group in codes], 5, 0, "cpu")
    picked = trials.pick(trials.sizes.new_tensor([17, 0, 6, 1]))
    assert picked.sizes.tolist() == [5, 2, 2, 1]
    assert (picked.codes[0].numpy() == codes[1][0]).all()
    assert (picked.codes[1, :2].numpy() == codes[0][0]).all()
    expected = [accuracy(codes[group])[row] for group, row in ((1, 0), (0, 0), (0, 1), (2, 5))]
    np.testing.assert_allclose(picked.accuracies.numpy(), expected, rtol=1e-6)
    assert (picked.weights == trials.weights[:, [6, 0, 1, 17]]).all()


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("trials", [1, 8, 64])
def test_gradients_written_out_are_those_of_autograd(trials: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(trials)
    model = MLPEnsemble(4, rng).double()
    model.output_bias.detach().zero_()
    sizes = torch.from_numpy(np.sort(rng.integers(1, 6, trials))[::-1].copy())
    codes = torch.from_numpy(np.stack([rng.integers(0, limit, (trials, 5)) for limit in COLUMNS], axis=2))
    weights = torch.from_numpy((rng.random((4, trials)) < 0.8).astype(float))
    weights[0] = 0  # a batch without a trial of this member
    # Predictions are about one half, so some of these are above and some below.
    batch = Trials(codes, sizes, torch.from_numpy(rng.random(trials)), weights)
    expected = torch.autograd.grad(member_losses(model, batch).sum(), list(model.parameters()))
    gradients = MLPGradients(model)
    poison_new_tensors(monkeypatch)
    found = gradients(token_shares(codes, sizes), batch.accuracies, weights)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert relative_error(mine, theirs) < 1e-12
