"""Selection: the best K, ties by canonical order, the same from a stream as from an array."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.candidates import canonical_keys
from pnas_fast.space import Codes
from pnas_fast.surrogate import SurrogateError, TopK, select_top, upper_confidence
from surrogate_data import random_candidates

seeds = st.integers(0, 2**31 - 1)


def distinct_candidates(seed: int) -> Codes:
    return random_candidates(np.random.default_rng(seed), 2, 2).codes


def tied_values(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Few distinct values, so that ties cross the edge."""
    return np.random.default_rng(seed).integers(0, 6, count) / 7


@given(seeds, st.integers(1, 700))
def test_is_the_head_of_a_full_sort(seed: int, k: int) -> None:
    keys = canonical_keys(distinct_candidates(seed))
    values = tied_values(seed, len(keys))
    expected = sorted(range(len(keys)), key=lambda row: (-values[row], int(keys[row])))[:k]
    assert select_top(values, keys, k).tolist() == expected


@given(seeds, st.integers(1, 60))
def test_the_order_of_candidates_does_not_matter(seed: int, k: int) -> None:
    keys = canonical_keys(distinct_candidates(seed))
    values = tied_values(seed, len(keys))
    shuffled = np.random.default_rng(seed + 1).permutation(len(keys))
    again = shuffled[select_top(values[shuffled], keys[shuffled], k)]
    assert (again == select_top(values, keys, k)).all()


@given(seeds, st.integers(1, 60), st.lists(st.integers(0, 600), max_size=6))
def test_a_stream_keeps_what_an_array_keeps(seed: int, k: int, cuts: list[int]) -> None:
    codes = distinct_candidates(seed)
    values = tied_values(seed, len(codes))
    stream = TopK(k, blocks=2)
    for part in np.split(np.arange(len(codes)), sorted(cuts)):
        stream.add(codes[part], values[part])
        assert len(stream.codes) <= k
    best = select_top(values, canonical_keys(codes), k)
    assert (stream.codes == codes[best]).all()
    assert (stream.values == values[best]).all()


def test_upper_confidence_is_mean_plus_deviations() -> None:
    scores = np.random.default_rng(0).random((5, 40))
    assert (upper_confidence(scores, 0.0) == scores.mean(axis=0)).all()
    np.testing.assert_allclose(upper_confidence(scores, 1.5), scores.mean(axis=0) + 1.5 * scores.std(axis=0))


def test_exploration_prefers_what_members_disagree_about() -> None:
    scores = np.array([[0.70, 0.60], [0.70, 0.78]])
    keys = np.arange(2, dtype=np.uint64)
    assert select_top(upper_confidence(scores, 0.0), keys, 1).tolist() == [0]
    assert select_top(upper_confidence(scores, 1.0), keys, 1).tolist() == [1]


def test_refuses_what_cannot_be_ordered() -> None:
    codes = distinct_candidates(0)
    keys, values = canonical_keys(codes), np.zeros(len(codes))
    with pytest.raises(SurrogateError, match="k is 0, allowed is at least 1"):
        select_top(values, keys, 0)
    with pytest.raises(SurrogateError, match="keys have shape"):
        select_top(values, keys[1:], 3)
    with pytest.raises(SurrogateError, match="values have shape"):
        select_top(np.zeros((5, 3)), keys, 3)
    with pytest.raises(SurrogateError, match="codes have shape"):
        TopK(3, blocks=3).add(codes, values)
    values[5] = np.nan
    with pytest.raises(SurrogateError, match="value 5 is nan"):
        select_top(values, keys, 3)
