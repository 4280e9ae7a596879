"""Spearman's rank correlation, against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pnas_fast.surrogate.ranking import rank_correlation

SOME = st.integers(0, 6)  # few values, so that many are equal


@given(st.lists(st.tuples(SOME, SOME), min_size=3, max_size=30))
def test_it_is_scipys(pairs: list[tuple[int, int]]) -> None:
    predicted, measured = np.array(pairs, dtype=np.float64).T / 8
    found = rank_correlation(predicted, measured)
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(predicted, measured).statistic, abs=1e-12)


def test_it_leaves_out_what_was_not_measured() -> None:
    predicted = np.array([0.1, 0.2, 0.3, 0.4])
    assert rank_correlation(predicted, np.array([0.5, 0.6, 0.7, np.nan])) == pytest.approx(1.0)
    assert rank_correlation(predicted, np.array([0.5, 0.6, np.nan, np.nan])) is None
    assert rank_correlation(np.ones(4), predicted) is None
