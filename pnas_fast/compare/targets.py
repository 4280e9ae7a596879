"""The targets of a comparison, and what each strategy needed for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any

from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.curves import MOST, Floats
from pnas_fast.compare.statistics import resampling
from pnas_fast.compare.target import Reach, Side, reach, resampled_means

_WAYS = (0.25, 0.5, 0.75)
"""Of the way from random search's end to the reference's."""

_BEST = 0.01
"""The share of a table's cells that a search is to come to."""


@dataclass(frozen=True, slots=True)
class Target:
    """A value that T_M is to reach, in words, and what it is in each resample (or everywhere)."""

    title: str
    most: int
    value: float
    resampled: Floats | float
    is_way: bool = False


def targets_of(comparison: Comparison, own: float | None) -> list[dict[str, Any]]:
    """Every target with what each strategy needed, on each axis, as JSON values."""

    @cache
    def side(index: int, axis: str, most: int) -> Side:
        group = comparison.groups[index]
        grid, curves = group.on_axis(axis, 0, most)
        weights = resampling(len(curves), [1, index])
        return Side(grid, curves, resampled_means(curves, weights))

    found = []
    for target in _targets(comparison, own, lambda index, most: side(index, "cells", most)):
        axes = {
            axis: {
                group.strategy: _values(
                    reach(
                        side(index, axis, target.most),
                        side(0, axis, target.most),
                        target.value,
                        target.resampled,
                    )
                )
                for index, group in enumerate(comparison.groups)
            }
            for axis in comparison.axes
        }
        told = {"title": target.title, "most": target.most, "value": target.value, "is_way": target.is_way}
        found.append({**told, "axes": axes})
    return found


def _targets(comparison: Comparison, own: float | None, side: Any) -> Iterator[Target]:
    """The reference's end, shares of the way there from random search's, a table's best cells, one's own."""
    reference = comparison.reference.strategy
    names = [group.strategy for group in comparison.groups]
    for most in MOST:
        mine = side(0, most)
        value, resampled = float(mine.mean[-1]), mine.resampled[:, -1]
        if not isfinite(value):
            continue
        yield Target(f"{reference}'s end", most, value, resampled)
        if "random" not in names[1:]:
            continue
        other = side(names.index("random"), most)
        start, starts = float(other.mean[-1]), other.resampled[:, -1]
        for way in _WAYS if isfinite(start) else ():
            title = f"{100 * way:.0f} % of the way"
            way_value, way_resampled = start + way * (value - start), starts + way * (resampled - starts)
            yield Target(title, most, way_value, way_resampled, is_way=True)
    if comparison.truth is not None:
        least = comparison.truth.best_share(_BEST)
        yield Target(f"the best {100 * _BEST:.0f} % of cells", 1, least, least)
    if own is not None:
        yield Target("your own", 1, own, own)


def _values(found: Reach) -> dict[str, Any]:
    """JSON values; what is censored or undefined is None."""

    def known(value: float) -> float | None:
        return value if isfinite(value) else None

    def interval(values: tuple[float, float] | None) -> list[float | None] | None:
        return None if values is None else [known(value) for value in values]

    return {
        "cost": known(found.cost),
        "whole": found.whole,
        "ratio_to_budget": known(found.paper),
        "ratio_to_budget_interval": interval(found.paper_interval),
        "least_ratio_to_budget": known(found.least_paper),
        "ratio": known(found.fair),
        "least_ratio": known(found.least_fair),
        "ratio_interval": interval(found.fair_interval),
        "median": known(found.median),
        "reached": found.reached,
        "runs": found.runs,
    }
