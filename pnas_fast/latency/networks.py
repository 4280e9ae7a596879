"""Which networks are timed: so that every operation on every kind of input is seen often."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pnas_fast.latency.fit import row_of
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell
from pnas_fast.space.neighbours import draw

FITTED, HELD_OUT = 60, 20
"""Networks that a table is fitted to, and those that it is judged by."""

_CHOICES = 64
"""Random cells of which the one is taken that says most."""

_RIDGE = 1e-3


class Chosen(NamedTuple):
    """A cell whose network is timed; ``held_out`` where the table must predict it."""

    cell: Cell
    held_out: bool


def choose_cells() -> list[Chosen]:
    """The cells, the same each time.

    `FITTED` are of 1 to 5 blocks, equally many: each is that of 64 random cells about which those before
    it say least, which is the one of the greatest variance xᵀ (XᵀX + λ)⁻¹ x. Of the `HELD_OUT`, which are
    drawn at random, three fifths have five blocks: cells of one size are harder to tell apart.
    """
    rng = np.random.default_rng(0)
    found: dict[Cell, bool] = {}
    information = _RIDGE * np.eye(len(row_of(draw(1, OPERATIONS, rng))))
    for index in range(FITTED):
        candidates = [draw(1 + index % MAX_BLOCKS, OPERATIONS, rng) for _ in range(_CHOICES)]
        rows = np.array([row_of(cell) for cell in candidates])
        variance = np.einsum("ij,ij->i", rows @ np.linalg.inv(information), rows)
        order = np.argsort(-variance, kind="stable").tolist()
        best = next(place for place in order if candidates[place].canonical() not in found)
        found[candidates[best].canonical()] = False
        information += np.outer(rows[best], rows[best])
    small = 2 * HELD_OUT // 5
    while len(found) < FITTED + HELD_OUT:
        place = len(found) - FITTED
        blocks = 1 + place % (MAX_BLOCKS - 1) if place < small else MAX_BLOCKS
        found.setdefault(draw(blocks, OPERATIONS, rng).canonical(), True)
    return [Chosen(cell, held_out) for cell, held_out in found.items()]
