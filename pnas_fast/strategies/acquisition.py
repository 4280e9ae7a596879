"""Which of many cells to train next: mutations of good ones, and Thompson sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Trial
from pnas_fast.space import Cell
from pnas_fast.space.neighbours import mutate
from pnas_fast.strategies.asked import Asked
from pnas_fast.strategies.keyed import generator_of

STREAM = 4
TWICE = 0.25
"""How often a candidate is two edits away from its parent, not one."""

DRAWS = 5
"""Mutations drawn for each candidate that is wanted, at most: a small space has not so many."""

Floats = npt.NDArray[np.float64]


def mutants(
    parents: Sequence[Trial],
    operations: Sequence[str],
    count: int,
    asked: Asked,
    rng: np.random.Generator,
    aims: Aims = ACCURACY_ALONE,
) -> dict[Cell, int]:
    """Canonical cells one or two edits from a parent, each once, and the number of that parent.

    Args:
        parents: one at least, drawn uniformly.
        operations: that cells are made of.
        count: as many as are wanted; fewer are found where few are new.
        asked: whose cells are not wanted.
        rng: of all draws.
        aims: whose limits a cell keeps, or breaks less than its parent does.
    """
    found = dict[Cell, int]()
    for _ in range(DRAWS * count):
        if len(found) == count:
            break
        parent = parents[int(rng.integers(len(parents)))]
        child = mutate(parent.cell, operations, rng)
        if rng.random() < TWICE:
            child = mutate(child, operations, rng)
        if child not in asked and aims.may_follow(child, aims.violation(parent.cell)):
            found.setdefault(child, parent.number)
    return found


def thompson(cells: Sequence[Cell], predictions: Floats, seed: int, turn: int) -> Floats:
    """Independent Thompson sampling: a draw (M,) from N(mean, deviation) for each cell.

    Mean and standard deviation are over the members of ``predictions`` (E, M). A cell's draw follows from
    seed, turn, its canonical form and its predictions, whichever cells it stands among.
    """
    normal = np.array([generator_of(cell, seed, STREAM, turn).standard_normal() for cell in cells])
    drawn: Floats = predictions.mean(axis=0) + predictions.std(axis=0) * normal
    return drawn
