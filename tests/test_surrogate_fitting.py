"""Folds: even, different, and stable while trials are added."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.surrogate.fitting import Trials, folds, member_weights
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
