"""T_M(n): how good the best M cells are, after so much was spent."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pnas_fast.protocols import Trial
from pnas_fast.space import Cell

Floats = npt.NDArray[np.float64]

MOST = (1, 5, 25)
"""M: how many of the best cells are averaged."""

_POINTS = 1000
"""Of a grid of costs, at most."""


def top_curves(trials: Sequence[Trial], values: Sequence[Callable[[Trial], float]]) -> Floats:
    """T_M(n) for each value, M of `MOST` and n = 1 … N; float64 (values, 3, N).

    T_M(n) is the mean of a value over the best M distinct cells among the first n trials. Cells are chosen
    by validation accuracy (`Trial.order`), whatever the value is. It is NaN until M cells have finished. A
    cell that was trained several times counts once, by its best trial.

    Args:
        trials: what was trained, in the order of proposals, failed ones too.
        values: of a finished trial.
    """
    found = np.full((len(values), len(MOST), len(trials)), np.nan)
    ranked: list[tuple[tuple[float, float, int], tuple[float, ...]]] = []
    held: dict[Cell, tuple[tuple[float, float, int], tuple[float, ...]]] = {}
    now = np.full((len(values), len(MOST)), np.nan)
    for n, trial in enumerate(trials):
        if trial.done and _enters(trial, ranked, held, tuple(value(trial) for value in values)):
            for index, most in enumerate(MOST):
                if len(ranked) >= most:
                    now[:, index] = np.mean([entry[1] for entry in ranked[-most:]], axis=0)
        found[:, :, n] = now
    return found


def _enters(
    trial: Trial,
    ranked: list[tuple[tuple[float, float, int], tuple[float, ...]]],
    held: dict[Cell, tuple[tuple[float, float, int], tuple[float, ...]]],
    values: tuple[float, ...],
) -> bool:
    """Enter a finished trial that is the best of its cell so far; whether it is among the best cells."""
    cell, entry = trial.cell.canonical(), (trial.order, values)
    before = held.get(cell)
    if before is not None:
        if before[0] >= entry[0]:
            return False
        ranked.remove(before)
    held[cell] = entry
    insort(ranked, entry, key=lambda item: item[0])
    return len(ranked) <= max(MOST) or entry[0] >= ranked[-max(MOST)][0]


def cost_grid(costs: Sequence[Floats]) -> Floats:
    """The costs at which some run has finished a child, ascending; thinned out where they are many."""
    grid = np.unique(np.concatenate(costs))
    if len(grid) > _POINTS:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, _POINTS).round().astype(int))]
    return grid


def at_costs(grid: Floats, costs: Sequence[Floats], curves: Sequence[Floats]) -> Floats:
    """Curves of runs on a grid of costs, float64 (runs, grid): the value after what was paid for by then.

    It is NaN before a run's first child. After its last the value stays: the run has ended.

    Args:
        grid: ascending.
        costs: of each run, (N,) and not descending: paid when its n-th child has finished.
        curves: of each run, (N,).
    """
    rows = []
    for cost, curve in zip(costs, curves, strict=True):
        place = np.searchsorted(cost, grid, side="right") - 1
        rows.append(np.where(place >= 0, curve[np.maximum(place, 0)], np.nan))
    return np.array(rows)
