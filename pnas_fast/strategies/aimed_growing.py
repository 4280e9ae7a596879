"""Growing cells by several objectives: candidates over a limit dropped, non-dominated layers of the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pnas_fast.candidates import Candidates, canonical_keys, expand_batches
from pnas_fast.objectives.aims import Aims
from pnas_fast.objectives.dominance import choose, first_layers
from pnas_fast.space import Codes
from pnas_fast.surrogate import Grown, Growth, Surrogate, TopK, upper_confidence
from pnas_fast.surrogate.checks import Floats

EXPLORED = 3
"""Layers in which cells are chosen because the surrogate's members disagree about them."""


class Aimed(NamedTuple):
    """What `grow_by` chose; ``dropped`` candidates broke a limit, and all did where ``fits`` is false."""

    grown: Grown
    dropped: int
    fits: bool


def grow_by(
    parents: Codes, surrogate: Surrogate, growth: Growth, aims: Aims, explore: float,
    scored: Callable[[int, int], None],
) -> Aimed:  # fmt: skip
    """Expand parents (M, b, 4) by every block and keep the best K candidates; by accuracy alone, as `grow`.

    Candidates that break a limit are dropped before they are scored; for b + 1 < B only limits that all they
    could grow into would break as well. The others go by non-dominated layers of expected accuracy and costs
    until there are K; of the last layer, those in the least crowded places; equals by their canonical keys.
    Where every candidate breaks a limit, those K are chosen that break them least.

    A share ``explore`` of the K are those of the first `EXPLORED` layers, not chosen otherwise, about which
    the surrogate's members disagree most.

    Memory grows with the numbers of candidates, not with their codes: codes are made a second time for those
    that may be chosen.
    """
    holding = aims if parents.shape[1] + 1 == growth.blocks else aims.growing
    rows, points, deviations = [np.empty(0, np.int64)], [np.empty((0, 1 + len(aims.costs)))], [np.empty(0)]
    least = TopK(growth.beam, parents.shape[1] + 1)
    count = kept = 0
    for batch in expand_batches(parents, growth.operations):
        violations = holding.violations(batch.codes)
        fits = np.flatnonzero(violations == 0)
        if len(fits):
            codes = batch.codes[fits] if len(fits) < len(batch.codes) else batch.codes
            scores = surrogate.score(Candidates(codes, batch.parent[fits]))
            objectives = [-upper_confidence(scores, growth.kappa)]
            objectives += [cost.before(codes) for cost in aims.costs]
            rows.append(count + fits)
            points.append(np.stack(objectives, axis=1))
            deviations.append(scores.std(axis=0) if explore else np.zeros(len(fits)))
            kept += len(fits)
        elif not kept:
            least.add(batch.codes, -violations)
        count += len(batch.codes)
        scored(count, int(batch.parent[-1]) + 1)
    if not kept:
        return Aimed(Grown(least.codes, surrogate.predict(least.codes), count), count, fits=False)
    values = np.concatenate(points)
    pool, _ = first_layers(values, growth.beam, EXPLORED if explore else 1)
    pool.sort()
    codes = _codes_of(np.concatenate(rows)[pool], parents, growth)
    chosen = _choose(values[pool], np.concatenate(deviations)[pool], codes, growth.beam, explore)
    return Aimed(Grown(codes[chosen], surrogate.predict(codes[chosen]), kept), count - kept, fits=True)


def _codes_of(rows: npt.NDArray[np.int64], parents: Codes, growth: Growth) -> Codes:
    """The codes of candidates by their sorted places among all."""
    found, first = [], 0
    for batch in expand_batches(parents, growth.operations):
        start, end = np.searchsorted(rows, (first, first + len(batch.codes)))
        found.append(batch.codes[rows[start:end] - first])
        first += len(batch.codes)
        if end == len(rows):
            break
    return np.concatenate(found)


def _choose(
    points: Floats, deviations: Floats, codes: Codes, beam: int, explore: float
) -> npt.NDArray[np.int64]:
    """Indices of the cells that are chosen, the explored ones last."""
    keys = canonical_keys(codes)

    def best(of: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
        return of[choose(points[of], k, lambda indices: keys[of[indices]])]

    everything = np.arange(len(points))
    wanted = round(explore * beam)
    exploited = best(everything, beam - wanted) if wanted < beam else everything[:0]
    layers, _ = first_layers(points, 1, EXPLORED)
    open_ = np.setdiff1d(layers, exploited)
    explored = open_[np.lexsort((keys[open_], -deviations[open_]))[:wanted]]
    if len(explored) < wanted:  # few are left in those layers: the rest as without exploring
        exploited = best(np.setdiff1d(everything, explored), beam - len(explored))
    return np.concatenate([exploited, explored])
