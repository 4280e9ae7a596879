"""The path ensemble: its features, its fit in closed form, and scores that share their parents' paths."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from cells import cells
from pnas_fast.candidates import Candidates, canonical_keys, expand, one_block_cells
from pnas_fast.space import OPERATIONS, Cell
from pnas_fast.surrogate import Surrogate, TopK, rank_correlation
from pnas_fast.surrogate.fitting import member_weights
from pnas_fast.surrogate.path_features import FEATURES, SIDES, features
from pnas_fast.surrogate.path_ridge import PENALTY, ridge
from surrogate_data import accuracy, fitted, random_candidates, random_cells

Path = tuple[int, ...]


def enumerated(cell: Cell) -> set[Path]:
    """All paths, by walking back from every block: the input, then operations by number."""

    def ending_at(source: int) -> list[Path]:
        if source < 2:
            return [(source,)]
        found = []
        for before, operation in cell.blocks[source - 2].sides:
            found += [(*path, OPERATIONS.index(operation)) for path in ending_at(before)]
        return found

    return {path for block in range(len(cell)) for path in ending_at(2 + block)}


def named(row: np.ndarray) -> set[Path]:
    """The paths that features say there are, read from their numbers."""

    def path(number: int) -> Path:
        stem, operation = divmod(number, 8)
        return (*((stem,) if stem < 2 else path(stem - 2)), operation)

    return {path(int(number)) for number in np.flatnonzero(row[SIDES:])}


def features_of(cell: Cell) -> np.ndarray:
    found: np.ndarray = features(np.array([cell.codes], np.int8))[0]
    return found


@settings(max_examples=60, deadline=None)
@given(cells())
def test_features_are_the_paths_there_are_and_counts_of_sides(cell: Cell) -> None:
    found = features_of(cell)
    assert found.shape == (FEATURES,)
    assert named(found) == {path for path in enumerated(cell) if len(path) <= 4}
    assert set(found[SIDES:]) <= {0, 1}
    sides = Counter(
        (min(source, 2), OPERATIONS.index(operation)) for b in cell.blocks for source, operation in b.sides
    )
    assert Counter(dict(zip(np.ndindex(3, 8), found[:SIDES].astype(int), strict=True))) == sides


@settings(max_examples=40, deadline=None)
@given(cells())
def test_cells_that_are_the_same_network_have_equal_features(cell: Cell) -> None:
    assert (features_of(cell) == features_of(cell.canonical())).all()


def test_many_cells_at_once_have_the_features_of_each() -> None:
    codes = random_cells(np.random.default_rng(1), 50, 4)
    assert (features(codes) == np.concatenate([features(codes[row : row + 1]) for row in range(50)])).all()


def test_the_fit_solves_the_penalised_least_squares() -> None:
    """As a plain least-squares problem, with a row more for each weight."""
    codes = random_cells(np.random.default_rng(2), 90, 3)
    known, values = features(codes), accuracy(codes)
    weights, intercept = ridge(known, values, 7.0)
    varying = known.std(axis=0) > 0
    assert (weights[~varying] == 0).all()
    standard = (known - known.mean(axis=0))[:, varying] / known.std(axis=0)[varying]
    rows = np.vstack([standard, np.sqrt(7.0) * np.eye(varying.sum())])
    solution = np.linalg.lstsq(rows, np.append(values - values.mean(), np.zeros(varying.sum())))[0]
    np.testing.assert_allclose(weights[varying] * known.std(axis=0)[varying], solution, atol=1e-10)
    np.testing.assert_allclose(
        known @ weights + intercept, standard @ solution + values.mean(), atol=1e-10, rtol=0
    )


def test_members_are_fitted_without_their_folds_to_cells_of_all_sizes() -> None:
    surrogate = fitted("paths", seed=4)
    rng = np.random.default_rng(4)
    groups = [random_cells(rng, 40, blocks) for blocks in (1, 2, 3)]
    known = np.concatenate([features(group) for group in groups])
    values = np.concatenate([accuracy(group) for group in groups])
    predicted = surrogate.predict_members(groups[2])
    for member, uses in enumerate(member_weights(120, 5, 4) > 0):
        weights, intercept = ridge(known[uses], values[uses], PENALTY)
        np.testing.assert_allclose(predicted[member], features(groups[2]) @ weights + intercept, atol=1e-9)


@pytest.mark.parametrize("blocks", [2, 3])
def test_ranks_cells_it_has_not_seen_and_larger_ones(blocks: int) -> None:
    rng = np.random.default_rng(7)
    codes = [one_block_cells(), random_cells(rng, 120, 2)]
    surrogate = Surrogate("paths", seed=3)
    surrogate.fit(codes, [accuracy(group) for group in codes])
    unseen = random_cells(rng, 300, blocks)
    rho = rank_correlation(surrogate.predict(unseen), accuracy(unseen))
    assert rho is not None
    assert rho > 0.55


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_scores_are_predictions_to_the_bit(blocks: int) -> None:
    """Candidates by parent, and any cells in any order; far within 1e-10, because sums are exact."""
    surrogate, rng = fitted("paths"), np.random.default_rng(blocks)
    codes = random_cells(rng, 500, blocks)
    batches = [Candidates(codes, np.zeros(len(codes), np.int32))]
    if blocks > 1:
        batches.append(random_candidates(rng, 3, blocks))
    for batch in batches:
        scores = surrogate.score(batch)
        assert scores.shape == (5, len(batch.codes))
        assert (scores == surrogate.predict_members(batch.codes)).all()


def test_the_order_of_candidates_has_no_influence_and_ties_go_by_canonical_key() -> None:
    """Some cells that differ have equal features, so that there are ties to break."""
    surrogate = fitted("paths")
    batch = expand(random_cells(np.random.default_rng(5), 30, 3), OPERATIONS[:2])
    order = np.random.default_rng(0).permutation(len(batch.codes))
    values = surrogate.score(batch).mean(axis=0)
    shuffled = Candidates(batch.codes[order], np.zeros(len(order), np.int32))
    assert (surrogate.score(shuffled).mean(axis=0) == values[order]).all()
    keys = canonical_keys(batch.codes)
    best = np.lexsort((keys, -values))[:200]
    assert len(np.unique(values[best])) < 200
    for start in (batch, shuffled):
        top = TopK(200, 4)
        for part in np.array_split(np.arange(len(order)), 7):
            top.add(start.codes[part], surrogate.score(start).mean(axis=0)[part])
        assert (canonical_keys(top.codes) == keys[best]).all()


@pytest.mark.parametrize("trials", [1, 2, 4, 5, 6])
def test_equal_accuracies_are_predicted_however_few_there_are(trials: int) -> None:
    codes = random_cells(np.random.default_rng(trials), trials, 2)
    surrogate = Surrogate("paths", seed=0)
    surrogate.fit([codes], [np.full(trials, 0.3)])
    unseen = random_cells(np.random.default_rng(0), 20, 5)
    np.testing.assert_allclose(surrogate.predict_members(unseen), 0.3, atol=1e-9, rtol=0)


def test_a_second_fit_starts_anew() -> None:
    codes = random_cells(np.random.default_rng(6), 40, 2)
    once, twice = Surrogate("paths", seed=0), Surrogate("paths", seed=0, refit="finetune")
    twice.fit([codes], [np.full(40, 0.1)])
    for surrogate in (once, twice):
        surrogate.fit([codes], [accuracy(codes)])
    assert (once.predict_members(codes) == twice.predict_members(codes)).all()
