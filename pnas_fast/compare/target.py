"""What strategies need to reach a target: the talk's claim, with the uncertainty of a few repeats.

A strategy that does not reach it within its budget has no such cost: it is censored, and never averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isinf, nan

import numpy as np
import numpy.typing as npt

from pnas_fast.compare.statistics import Floats, percentile_interval

_NEVER = -1e9
"""In place of a value that is not there yet: no mean with it reaches anything."""
_ROUNDING = 1e-12


def first_reach(grid: Floats, means: Floats, target: Floats | float) -> Floats:
    """The first cost at which each row of means reaches its target, infinite where none does.

    Args:
        grid: costs, (k,).
        means: (rows, k); NaN does not reach anything.
        target: one, or one for each row.
    """
    reached = means >= np.reshape(target, (-1, 1)) - _ROUNDING
    return np.where(reached.any(axis=1), grid[reached.argmax(axis=1)], inf)


def resampled_means(curves: Floats, weights: Floats) -> Floats:
    """Mean curves (resamples, k) of curves (repeats, k); far below everything where one is NaN."""
    means: Floats = weights @ np.nan_to_num(curves, nan=_NEVER)
    return means


def ratio(cost: float, reference: float) -> float:
    """How many times the reference's cost a strategy's is: infinite where it is censored.

    NaN where the reference never reached the target, so that there is nothing to compare with.
    """
    return nan if isinf(reference) or not reference else cost / reference


@dataclass(frozen=True, slots=True)
class Reach:
    """What a strategy needed for a target.

    Attributes:
        cost: where the mean curve over repeats reaches it, infinite where it does not.
        paper: ``cost`` over the reference's whole budget, as the paper reads its figure.
        fair: ``cost`` over what the reference itself needed.
        paper_interval: of ``paper``, resampling the repeats of both.
        fair_interval: of ``fair``.
        median: of what the runs needed one by one, infinite where half of them did not reach it.
        reached: how many runs reached it.
        runs: how many there are.
        whole: the whole budget, which ``cost`` exceeds where it is censored.
        least_paper: what ``paper`` exceeds where it is censored.
        least_fair: what ``fair`` exceeds then.
    """

    cost: float
    paper: float
    fair: float
    paper_interval: tuple[float, float] | None
    fair_interval: tuple[float, float] | None
    median: float
    reached: int
    runs: int
    whole: float
    least_paper: float
    least_fair: float


@dataclass(frozen=True, slots=True)
class Side:
    """A strategy's curves on an axis: grid (k,), curves (repeats, k), and their means resampled."""

    grid: Floats
    curves: Floats
    resampled: Floats

    @property
    def mean(self) -> Floats:
        """The mean curve (k,), NaN where a repeat has no value yet."""
        mean: Floats = self.curves.mean(axis=0)
        return mean

    @property
    def whole(self) -> float:
        """The whole budget."""
        return float(self.grid[-1])


def reach(side: Side, reference: Side, target: float, resampled: Floats | float) -> Reach:
    """What one strategy needed for a target, beside a reference.

    Args:
        side: the strategy's.
        reference: the reference's, which may be the same.
        target: that both are held to.
        resampled: the target in each resample: a target that follows from runs is as uncertain as they are.
    """
    cost = float(first_reach(side.grid, side.mean[None], target)[0])
    own = float(first_reach(reference.grid, reference.mean[None], target)[0])
    each = first_reach(side.grid, side.curves, target)
    paper_interval = fair_interval = None
    if len(side.curves) > 1 and len(reference.curves) > 1:
        costs = first_reach(side.grid, side.resampled, resampled)
        owns = first_reach(reference.grid, reference.resampled, resampled)
        paper_interval = percentile_interval(_ratios(costs, np.full(len(costs), reference.whole)))
        fair_interval = percentile_interval(_ratios(costs, owns))
    return Reach(
        cost=cost,
        paper=ratio(cost, reference.whole),
        fair=ratio(cost, own),
        paper_interval=paper_interval,
        fair_interval=fair_interval,
        median=median_cost(each),
        reached=int(np.isfinite(each).sum()),
        runs=len(each),
        whole=side.whole,
        least_paper=ratio(side.whole, reference.whole),
        least_fair=ratio(side.whole, own),
    )


def _ratios(costs: Floats, references: Floats) -> npt.NDArray[np.float64]:
    known = np.isfinite(references) & (references > 0)
    return np.where(known, costs / np.where(known, references, 1.0), nan)


def median_cost(costs: Floats) -> float:
    """The median of costs of which some may be infinite; of an even number the upper middle one."""
    return float(np.sort(costs)[len(costs) // 2])


def images_ratio(models: float, images: float, final: float, reference: float) -> float:
    """How many times the training images of a reference a search takes, its final stage included.

    The paper's: NAS trains 5,808 children of 0.9 M images and 250 of 13.5 M to choose among them,
    progressive search 1,160 of 0.9 M. Without that final stage images are as children, 5.0 times.

    >>> round(images_ratio(5808, 0.9e6, 250 * 13.5e6, 1160 * 0.9e6), 2)
    8.24
    >>> round(images_ratio(5808, 0.9e6, 0, 1160 * 0.9e6), 1)
    5.0
    """
    return (models * images + final) / reference
