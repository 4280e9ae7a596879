"""A latency table from times of whole networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pnas_fast.objectives.additive import INPUT_CLASSES
from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Cell

Floats = npt.NDArray[np.float64]

_SIDES = INPUT_CLASSES * len(OPERATIONS)

_TOLERANCE = 1e-10


def row_of(cell: Cell) -> Floats:
    """What a cell's latency is a sum of, float64 (29,).

    First how many of its sides apply each operation to each class of input, in the order of the table's
    rows; then 1 for every size up to its own: a constant is the sum of what each further block adds.
    """
    row = np.zeros(_SIDES + MAX_BLOCKS)
    for source, operation, other, another in cell.codes.tolist():
        for place, code in ((source, operation), (other, another)):
            row[min(place, CELL_INPUTS) * len(OPERATIONS) + code] += 1
    row[_SIDES : _SIDES + len(cell)] = 1
    return row


def fit_table(cells: Sequence[Cell], ms: Floats) -> tuple[Floats, Floats]:
    """The table (3, 8) and constants (5,), in ms, that cells' latencies (n,) are nearest to.

    Least squares of relative errors with nothing below 0; constants never fall from one size to the next.
    So a cell never costs less than one that it was grown from.
    """
    rows = np.array([row_of(cell) for cell in cells])
    found = non_negative_least_squares(rows / ms[:, np.newaxis], np.ones(len(ms)))
    return found[:_SIDES].reshape(INPUT_CLASSES, len(OPERATIONS)), np.cumsum(found[_SIDES:])


def non_negative_least_squares(a: Floats, b: Floats) -> Floats:
    """The x ≥ 0 (n,) of the least ‖a x − b‖, for a (m, n) and b (m,).

    Lawson and Hanson's active set, "Solving Least Squares Problems", 1974, chapter 23: of the variables at 0,
    the one that helps most becomes free, and a step that would take a free one below 0 stops it there.
    """
    x = np.zeros(a.shape[1])
    free = np.zeros(len(x), bool)
    enough = _TOLERANCE * np.abs(a).sum()
    for _ in range(10 * len(x)):  # it ends by itself but for rounding
        gradient = np.where(free, -np.inf, a.T @ (b - a @ x))
        if gradient.max() <= enough:
            break
        free[gradient.argmax()] = True
        while True:
            goal = np.zeros(len(x))
            goal[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            below = free & (goal <= 0)
            if not below.any():
                x = goal
                break
            step = np.min(x[below] / np.maximum(x[below] - goal[below], np.finfo(float).tiny))
            x += step * (goal - x)
            free &= x > enough
            x[~free] = 0
    return x
