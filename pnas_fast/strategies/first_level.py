"""Which one-block cells to train where not all of them are."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pnas_fast.space import Codes

STREAM = 7


def balanced(codes: Codes, count: int, seed: int) -> Codes:
    """``count`` of some one-block cells (n, 1, 4), drawn so that every side is in about as many of them.

    A side is an input and the operation on it. One cell after the other is taken, each time one whose two
    sides are in the fewest cells so far (the sum of both), at random among those. They come back in the order
    that they had.
    """
    rng = np.random.default_rng([seed, STREAM])
    sides = [(tuple(row[0, :2].tolist()), tuple(row[0, 2:].tolist())) for row in codes]
    left = rng.permutation(len(codes)).tolist()
    used, taken = Counter[tuple[int, ...]](), list[int]()
    while left and len(taken) < count:
        place = min(left, key=lambda place: sum(used[side] for side in sides[place]))
        left.remove(place)
        used.update(sides[place])
        taken.append(place)
    return codes[sorted(taken)]
