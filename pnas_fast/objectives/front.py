"""Pareto fronts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def pareto_front(
    items: Iterable[Item], cost: Callable[[Item], float], accuracy: Callable[[Item], float]
) -> list[Item]:
    """The items that no other beats: none costs as little and is as accurate, better in one of the two.

    Returned from the cheapest to the most accurate; of items equal in both, the first. What has a NaN, as
    failed trials have, is on no front.
    """
    points = [(cost(item), accuracy(item), item) for item in items]
    known = [point for point in points if point[0] == point[0] and point[1] == point[1]]
    front: list[tuple[float, float, Item]] = []
    for point in sorted(known, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return [item for _, _, item in front]
