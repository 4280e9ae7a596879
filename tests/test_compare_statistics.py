"""Intervals against a direct bootstrap, U against all deals, Holm by hand."""

from __future__ import annotations

import doctest
from itertools import combinations
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnas_fast.compare import statistics, target
from pnas_fast.compare.statistics import (
    holm,
    mann_whitney,
    mean_interval,
    percentile_interval,
    resampling,
    standard_error,
)


@pytest.mark.parametrize("module", [statistics, target])
def test_the_examples_of_docstrings(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted >= 1
    assert found.failed == 0


def all_deals(one: list[int], other: list[int]) -> tuple[float, float]:
    """U and its two-sided p-value by listing every deal."""

    def wins(mine: list[int], theirs: list[int]) -> float:
        return sum((a > b) + (a == b) / 2 for a in mine for b in theirs)

    pooled, observed = one + other, wins(one, other)
    middle = len(one) * len(other) / 2
    far = total = 0
    for chosen in combinations(range(len(pooled)), len(one)):
        mine = [pooled[index] for index in chosen]
        theirs = [value for index, value in enumerate(pooled) if index not in chosen]
        far += abs(wins(mine, theirs) - middle) >= abs(observed - middle)
        total += 1
    return observed, far / total


samples = st.lists(st.integers(0, 5), min_size=1, max_size=5)


@given(samples, samples)
@settings(max_examples=60)
def test_u_is_exact_also_with_equals(one: list[int], other: list[int]) -> None:
    assert mann_whitney(one, other) == pytest.approx(all_deals(one, other))


def test_beyond_what_is_exact_the_normal_approximation_goes_on() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=101).tolist(), rng.normal(0.2, size=100).tolist()
    _, exact = mann_whitney(one[:100], other)
    _, normal = mann_whitney(one, other)
    assert abs(exact - normal) < 0.05
    assert mann_whitney([1.0] * 101, [1.0] * 100)[1] == 1.0


def test_holm_by_hand() -> None:
    # The least times 3, the next times 2 but not below the first, the greatest as it is.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_interval_is_that_of_a_direct_bootstrap() -> None:
    values = np.array([0.61, 0.64, 0.66, 0.65, 0.70])
    drawn = np.random.default_rng([0]).integers(5, size=(10_000, 5))
    means = np.sort(values[drawn].mean(axis=1))
    found = mean_interval(values)
    assert found is not None
    assert found == pytest.approx((means[249], means[9749]), abs=1e-12)
    assert mean_interval(values[:1]) is None


def test_weights_of_resamples_add_up() -> None:
    weights = resampling(5, [3], 100)
    assert weights.sum(axis=1) == pytest.approx(np.ones(100))
    assert set((weights * 5).round().ravel()) <= {0, 1, 2, 3, 4, 5}


def test_censored_values_are_the_greatest_and_never_averaged() -> None:
    half = np.array([1.0] * 500 + [inf] * 500)
    assert percentile_interval(half) == (1.0, inf)
    few = np.array([1.0] * 990 + [inf] * 10)
    assert percentile_interval(few) == (1.0, 1.0)
    assert percentile_interval(np.array([1.0] * 50 + [nan] * 50)) is None


def test_the_standard_error_is_that_of_the_mean() -> None:
    values = np.array([[1.0, 4.0], [3.0, 4.0]])
    assert standard_error(values) == pytest.approx([1.0, 0.0])
    assert all(isnan(error) for error in standard_error(values[:1]))
