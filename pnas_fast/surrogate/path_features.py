"""Cells as features: which sequences of operations lead from an input to a block, and counts of sides.

A *path* is an input of the cell, 0 or 1, and the operations passed from there through blocks to any block:
all blocks are concatenated, so each is an end (after the path encoding of BANANAS, White et al., AAAI 2021).
Paths have at most three operations; of a longer one its first three are a path of their own.

A path without its last operation is a *stem*: the two inputs, then every path of at most two operations. Path
``stem · 8 + operation`` extends a stem, and as a stem of its own has two numbers more, like nodes of a tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pnas_fast.space import CELL_INPUTS, OPERATIONS, Codes
from pnas_fast.surrogate.checks import Floats

Flags = npt.NDArray[np.bool_]

_INNER = CELL_INPUTS * (1 + len(OPERATIONS))
"""Stems of at most one operation: those whose extensions are stems again."""

STEMS = CELL_INPUTS + _INNER * len(OPERATIONS)
"""2 + 16 + 128."""

SOURCES = CELL_INPUTS + 1
"""What counts of sides tell apart: either input, or any earlier block."""

SIDES = SOURCES * len(OPERATIONS)
"""How many of the features are counts of sides; the others are paths."""

FEATURES = SIDES + STEMS * len(OPERATIONS)
"""24 counts and 1168 paths."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Of n cells with b blocks: stems that end ``at`` each input and block, and paths ``present``.

    ``at`` is (n, 2 + b, 146) and ``present`` (n, 146, 8).
    """

    at: Flags
    present: Flags


def paths_of(codes: Codes) -> Paths:
    """The paths of cells in codes (n, b, 4), where b may be 0."""
    count, blocks = codes.shape[:2]
    rows = np.arange(count)
    at = np.zeros((count, CELL_INPUTS + blocks, STEMS), np.bool_)
    at[:, range(CELL_INPUTS), range(CELL_INPUTS)] = True
    present = np.zeros((count, STEMS, len(OPERATIONS)), np.bool_)
    for block in range(blocks):
        longer = at[:, CELL_INPUTS + block, CELL_INPUTS:].reshape(count, _INNER, len(OPERATIONS))
        for side in (0, 2):
            source, operation = codes[:, block, side], codes[:, block, side + 1]
            stems = at[rows, source]
            present[rows, :, operation] |= stems
            longer[rows, :, operation] |= stems[:, :_INNER]
        at[:, CELL_INPUTS + block, CELL_INPUTS:] = longer.reshape(count, -1)
    return Paths(at, present)


def side_feature(source: npt.NDArray[np.integer], operation: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """Which feature counts sides with such a source and operation."""
    kind = np.minimum(source, CELL_INPUTS).astype(np.intp)
    found: npt.NDArray[np.intp] = kind * len(OPERATIONS) + operation
    return found


def features(codes: Codes) -> Floats:
    """Features (n, 1192) of cells in codes (n, b, 4): 24 counts of sides, then 1 for every path there is.

    Equal for cells that are the same network, however they are written; cells of all sizes share them.
    """
    found = np.zeros((len(codes), FEATURES))
    rows = np.arange(len(codes))
    for block in range(codes.shape[1]):
        for side in (0, 2):
            found[rows, side_feature(codes[:, block, side], codes[:, block, side + 1])] += 1
    found[:, SIDES:] = paths_of(codes).present.reshape(len(codes), -1)
    return found
