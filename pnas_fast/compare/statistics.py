"""What a few repeats allow to be said: intervals by resampling, an exact rank test, Holm's correction.

There is no t-test: with five repeats nothing speaks for normal distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import comb, erfc, nan, sqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
"""Of intervals."""

EXACT = 10_000
"""Pairs of repeats up to which `mann_whitney` is exact."""


def standard_error(values: Floats) -> Floats:
    """The standard error of the mean over the first axis, the repeats; NaN for a single one.

    The paper calls it the standard deviation of the mean.
    """
    if len(values) < 2:
        return np.full(values.shape[1:], nan)
    error: Floats = values.std(axis=0, ddof=1) / sqrt(len(values))
    return error


def resampling(repeats: int, seed: Sequence[int], resamples: int = RESAMPLES) -> Floats:
    """Weights (resamples, repeats), rows adding up to 1: how often each repeat was drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(repeats, size=(resamples, repeats))
    weights = np.zeros((resamples, repeats))
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1 / repeats)
    return weights


def percentile_interval(resampled: Floats) -> tuple[float, float] | None:
    """The middle `LEVEL` of resampled values (k,), as two of them; infinite ones are the greatest.

    None where more of them are NaN, that is undefined, than lie outside on one side.
    """
    outside = (1 - LEVEL) / 2
    if np.isnan(resampled).mean() > outside:
        return None
    known = resampled[~np.isnan(resampled)]
    # An order statistic, not a point between two, of which one may be infinite.
    low, high = np.quantile(known, (outside, 1 - outside), method="inverted_cdf")
    return float(low), float(high)


def mean_interval(values: Floats) -> tuple[float, float] | None:
    """The bootstrap interval of the mean of repeats (n,); None for a single one, or where one is unknown."""
    if len(values) < 2:
        return None
    return percentile_interval(resampling(len(values), [0]) @ values)


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """U, the pairs in which ``one`` is greater with equals counting half, and its two-sided p-value.

    p is the share, among all ways to deal the pooled values out anew, of those whose U is at least as far
    from the middle: exact, also with equal values. Beyond `EXACT` pairs it is the normal
    approximation with its correction for equals.

    >>> mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    (0.0, 0.007936507936507936)
    """
    n, m = len(one), len(other)
    pooled = sorted([(value, True) for value in one] + [(value, False) for value in other])
    groups = [[mine for _, mine in group] for _, group in groupby(pooled, key=lambda item: item[0])]
    doubled = below = 0
    for group in groups:
        mine, theirs = sum(group), len(group) - sum(group)
        doubled += mine * (2 * below + theirs)
        below += theirs
    sizes = [len(group) for group in groups]
    away = abs(doubled - n * m)
    p = _exact_tail(n, m, sizes, away) if n * m <= EXACT else _normal_tail(n, m, sizes, away)
    return doubled / 2, p


def _exact_tail(n: int, m: int, sizes: list[int], away: int) -> float:
    """The share of deals with |2U − nm| ≥ ``away``, the pool being groups of equals in ascending order.

    ``ways[k]`` counts, by 2U so far, the deals in which k of the values seen went to the first sample.
    """
    ways = np.zeros((n + 1, 2 * n * m + 1))
    ways[0, 0] = 1
    seen = 0
    for size in sizes:
        after = np.zeros_like(ways)
        for k in range(max(0, seen - m), min(n, seen) + 1):
            below = seen - k
            for mine in range(max(0, size - (m - below)), min(size, n - k) + 1):
                shift = mine * (2 * below + size - mine)
                after[k + mine, shift:] += comb(size, mine) * ways[k, : ways.shape[1] - shift]
        ways = after
        seen += size
    found = ways[n]
    far = np.abs(np.arange(len(found)) - n * m) >= away
    return float(min(found[far].sum() / comb(n + m, n), 1.0))


def _normal_tail(n: int, m: int, sizes: list[int], away: int) -> float:
    total = n + m
    ties = sum(size**3 - size for size in sizes) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    return erfc(away / 2 / sqrt(2 * variance)) if variance > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below α together with a chance of at most α that any is by accident.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, greatest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = greatest
    return adjusted
