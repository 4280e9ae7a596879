"""Selecting the K most promising candidates, from one array or from a stream of batches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pnas_fast.candidates import canonical_keys
from pnas_fast.space import Codes
from pnas_fast.surrogate.checks import Floats, SurrogateError

Keys = npt.NDArray[np.uint64]


def upper_confidence(scores: Floats, kappa: float) -> Floats:
    """Mean plus ``kappa`` standard deviations over the members: (E, M) to (M,).

    The deviation is the population's (divided by E). ``kappa`` 0 gives the ensemble mean; a positive
    one favours candidates the members disagree about.
    """
    mean: Floats = scores.mean(axis=0)
    return mean + kappa * scores.std(axis=0) if kappa else mean


def select_top(values: Floats, keys: Keys, k: int) -> npt.NDArray[np.int64]:
    """Indices of the ``k`` largest values, best first; equal values in the order of their keys.

    Args:
        values: (M,); all indices are returned when there are no more than ``k``.
        keys: (M,) canonical keys, which make the result independent of the candidates' order.
        k: how many to keep, at least 1.

    Raises:
        SurrogateError: a value that is NaN, shapes that differ, or ``k`` below 1.
    """
    _check(values, k)
    if keys.shape != values.shape:
        raise SurrogateError(f"keys have shape {keys.shape}, allowed is that of the values, {values.shape}")
    pool = _contenders(values, k)
    return pool[np.lexsort((keys[pool], -values[pool]))[:k]]


class TopK:
    """The ``k`` best candidates of a stream: memory grows with ``k`` and the largest batch only.

    Batches of any sizes, in any order, leave the same candidates as `select_top` of all at once.

    Args:
        k: how many to keep, at least 1.
        blocks: b, the size of the candidates.
    """

    def __init__(self, k: int, blocks: int) -> None:
        self.k = k
        self.codes: Codes = np.empty((0, blocks, 4), dtype=np.int8)
        """The candidates kept, best first."""
        self.values: Floats = np.empty(0)
        """Their values."""

    def add(self, codes: Codes, values: Floats) -> None:
        """Consider a batch of candidates int8 (m, b, 4) with values (m,).

        Raises:
            SurrogateError: a value that is NaN, shapes that do not fit, or ``k`` below 1.
        """
        _check(values, self.k)
        expected = (len(values), *self.codes.shape[1:])
        if codes.shape != expected:
            raise SurrogateError(f"codes have shape {codes.shape}, allowed for these values is {expected}")
        pool = _contenders(values, self.k)
        merged = np.concatenate([self.codes, codes[pool]])
        merged_values = np.concatenate([self.values, values[pool]])
        # Keys are made for contenders only: they cost more than comparing values.
        best = select_top(merged_values, canonical_keys(merged), self.k)
        self.codes, self.values = merged[best], merged_values[best]


def _check(values: Floats, k: int) -> None:
    if k < 1:
        raise SurrogateError(f"k is {k}, allowed is at least 1")
    if values.ndim != 1:
        raise SurrogateError(f"values have shape {values.shape}, allowed is one value a candidate")
    if np.isnan(values).any():
        raise SurrogateError(f"value {np.flatnonzero(np.isnan(values))[0]} is nan, allowed are numbers")


def _contenders(values: Floats, k: int) -> npt.NDArray[np.int64]:
    """Indices of all values that reach the k-th largest, so that ties at the edge are all in it."""
    if len(values) <= k:
        return np.arange(len(values))
    return np.flatnonzero(values >= np.partition(values, -k)[-k])
