"""Rank correlation of predictions with measurements."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def rank_correlation(predicted: Floats, measured: Floats) -> float | None:
    """Spearman's ρ where something was measured; None for fewer than 3 points or equal values.

    Pearson's correlation of the ranks, equal values having the mean of theirs. Both are (n,), NaN in
    ``measured`` where nothing was.
    """
    known = np.isfinite(measured)
    predicted, measured = predicted[known], measured[known]
    if len(measured) < 3 or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return None
    return float(np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    mean: Floats = np.cumsum(count) - (count - 1) / 2
    return mean[place]
