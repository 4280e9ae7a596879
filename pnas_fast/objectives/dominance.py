"""Non-dominated layers of many points, and the best so many of them.

A point dominates another that is no better in any objective and worse in one. Layer 0 is what nothing
dominates, layer 1 what nothing dominates when layer 0 is taken away, and so on. Every objective is to be
small here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

_SAMPLE = 4096
_BINS = {1: 4096, 2: 512, 3: 64, 4: 24}
_FEWEST_BINS = 12
_BLOCK = 512


def choose(points: Floats, k: int, keys: Callable[[Indices], Keys]) -> Indices:
    """The best ``k`` points: layer by layer, and of the last layer those in the least crowded places.

    With a single objective they are the ``k`` smallest, as `pnas_fast.surrogate.select_top` chooses them.

    Args:
        points: finite (M, d); all are chosen where there are no more than ``k``.
        k: how many, at least 1.
        keys: of points by their index; they decide between equals, and must differ.

    Returns:
        Their indices, by layer, then by the objectives in their order, then by key.

    Raises:
        ValueError: a number that is not finite, or ``k`` below 1.
    """
    pool, layer = first_layers(points, k)
    own, names = points[pool], keys(pool)
    if len(pool) > k:
        last = np.flatnonzero(layer == layer.max())
        room = k - (len(pool) - len(last))
        chosen = last[least_crowded(own[last], names[last])[:room]]
        kept = np.concatenate([np.flatnonzero(layer < layer.max()), chosen])
        pool, layer, own, names = pool[kept], layer[kept], own[kept], names[kept]
    order = np.lexsort((names, *own.T[::-1], layer))
    return pool[order]


def first_layers(points: Floats, k: int, least: int = 1) -> tuple[Indices, Indices]:
    """Whole layers from the first on, as many as hold ``k`` points or all: indices (n,) and layers (n,).

    Time grows with M log M and with the layers that are needed; memory with M bytes.

    Args:
        points: finite (M, d), d 1 or more.
        k: how many, at least 1.
        least: layers that are given in any case.

    Raises:
        ValueError: a number that is not finite, or ``k`` below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, allowed is 1 and more")
    if points.ndim != 2 or not points.shape[1] or not np.isfinite(points).all():
        raise ValueError(f"points have shape {points.shape}, allowed are finite numbers of shape (M, d)")
    left = _without_hopeless(points, k) if least == 1 else np.arange(len(points))
    # The order of dominance: what dominates a point comes before it.
    left = left[np.lexsort(points[left].T[::-1])]
    found, layers, count = [left[:0]], [left[:0]], 0
    while len(left) and (count < k or len(layers) <= least):
        front = _front(points[left])
        found.append(left[front])
        layers.append(np.full(len(found[-1]), len(layers) - 1))
        count += len(found[-1])
        left = left[~front]
    return np.concatenate(found), np.concatenate(layers)


def least_crowded(points: Floats, keys: Keys) -> Indices:
    """Indices of points of one layer, those in the least crowded places first; equals by their keys.

    A point's distance is that between its neighbours, added up over the objectives, each divided by its
    range (Deb et al., NSGA-II, 2002); the first and last of an objective come before all others. A point with
    the very numbers of another one, whose key is less, comes after all that stand alone.
    """
    order = np.lexsort((keys, *points.T[::-1]))
    ordered = points[order]
    alone = np.ones(len(points), np.bool_)
    alone[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    distance = np.full(len(points), -1.0)
    distance[order[alone]] = _crowding(ordered[alone])
    return np.lexsort((keys, -distance))


def _crowding(points: Floats) -> Floats:
    """Crowding distances of points that differ, in lexicographic order."""
    total = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        extent = ordered[-1] - ordered[0]
        if extent:
            total[order[1:-1]] += (ordered[2:] - ordered[:-2]) / extent
            total[order[[0, -1]]] = np.inf
    return total


def _without_hopeless(points: Floats, k: int) -> Indices:
    """Indices of all points but some that ``k`` others dominate, which are in no layer that is needed.

    Whatever dominates a point lies in an earlier layer, and the layers before the last one that is needed
    hold fewer than ``k`` points. Dominators are counted bin by bin of a grid.
    """
    left = np.arange(len(points))
    while len(left) > k:
        kept = left[_dominators(points[left]) < k]
        if len(kept) > 0.8 * len(left):
            return kept
        left = kept
    return left


def _dominators(points: Floats) -> Indices:
    """How many points at least dominate each: those in bins that are less in every objective."""
    count = _BINS.get(points.shape[1], _FEWEST_BINS)
    sample = np.sort(points[:: max(1, len(points) // _SAMPLE)], axis=0)
    edges = [np.unique(column[:: max(1, len(column) // count)]) for column in sample.T]
    shape = tuple(len(edge) + 1 for edge in edges)
    if prod(shape) > len(points) + 2**20:
        return np.zeros(len(points), np.int64)
    flat = np.zeros(len(points), np.intp)
    for edge, size, column in zip(edges, shape, points.T, strict=True):
        flat *= size
        flat += np.searchsorted(edge, column, side="right")
    lower = np.zeros(tuple(size + 1 for size in shape), np.int64)
    inside = (slice(1, None),) * len(shape)
    lower[inside] = np.bincount(flat, minlength=prod(shape)).reshape(shape)
    for axis in range(len(shape)):
        np.cumsum(lower, axis=axis, out=lower)
    return lower[(slice(None, -1),) * len(shape)].ravel()[flat]


def _front(points: Floats) -> npt.NDArray[np.bool_]:
    """Which of points (n, d) in lexicographic order nothing dominates."""
    starts = np.ones(len(points), np.bool_)
    starts[1:] = (points[1:] != points[:-1]).any(axis=1)
    rows = np.flatnonzero(starts)
    # Of points that differ, one is dominated where an earlier one is no worse in all but the first objective.
    rest = points[rows, 1:] if points.shape[1] > 1 else np.zeros((len(rows), 1))
    archive: _Staircase | _List = _Staircase() if rest.shape[1] <= 2 else _List(rest.shape[1])
    unbeaten = np.zeros(len(rows), np.bool_)
    for first in range(0, len(rows), _BLOCK):
        block = rest[first : first + _BLOCK]
        open_ = np.flatnonzero(~archive.beats(block))
        new = open_[_unbeaten_by_earlier(block[open_])]
        archive.add(block[new])
        unbeaten[first + new] = True
    found: npt.NDArray[np.bool_] = unbeaten[np.cumsum(starts) - 1]
    return found


def _unbeaten_by_earlier(points: Floats) -> npt.NDArray[np.bool_]:
    """Which of (n, d) points no earlier one is no worse than in all of ``d``."""
    no_worse = np.ones((len(points), len(points)), np.bool_)
    for column in points.T:
        no_worse &= column[:, np.newaxis] <= column
    beaten: npt.NDArray[np.bool_] = np.logical_or.reduce(np.triu(no_worse, 1), axis=0)
    return ~beaten


class _Staircase:
    """Points of one or two objectives: those that no other beats, along the first of them."""

    def __init__(self) -> None:
        self._x = self._y = np.empty(0)

    def beats(self, points: Floats) -> npt.NDArray[np.bool_]:
        """Which of (n, d) points one that was added is no worse than."""
        last = np.searchsorted(self._x, points[:, 0], side="right") - 1
        lowest = np.append(self._y, np.inf)  # in place −1: where none is as far left
        found: npt.NDArray[np.bool_] = lowest[last] <= (points[:, 1] if points.shape[1] > 1 else 0.0)
        return found

    def add(self, points: Floats) -> None:
        """Take (n, d) points in."""
        x = np.concatenate([self._x, points[:, 0]])
        y = np.concatenate([self._y, points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))])
        order = np.lexsort((y, x))
        x, y = x[order], y[order]
        kept = np.ones(len(y), np.bool_)
        kept[1:] = y[1:] < np.minimum.accumulate(y)[:-1]
        self._x, self._y = x[kept], y[kept]


class _List:
    """Points of any number of objectives."""

    def __init__(self, objectives: int) -> None:
        self._points = np.empty((0, objectives))

    def beats(self, points: Floats) -> npt.NDArray[np.bool_]:
        """Which of (n, d) points one that was added is no worse than."""
        beaten = np.zeros(len(points), np.bool_)
        for first, end in pairwise([*range(0, len(self._points), _BLOCK), len(self._points)]):
            open_ = np.flatnonzero(~beaten)
            no_worse = np.ones((end - first, len(open_)), np.bool_)
            for own, theirs in zip(self._points[first:end].T, points[open_].T, strict=True):
                no_worse &= own[:, np.newaxis] <= theirs
            beaten[open_] = no_worse.any(axis=0)
        return beaten

    def add(self, points: Floats) -> None:
        """Take (n, d) points in."""
        self._points = np.concatenate([self._points, points])
