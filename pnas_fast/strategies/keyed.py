"""Random numbers that belong to a cell: neither when it is met nor beside which others has a say."""

from __future__ import annotations

import hashlib

import numpy as np

from pnas_fast.space import Cell


def generator_of(cell: Cell, *numbers: int) -> np.random.Generator:
    """A generator seeded with numbers and a cell, in whatever order its blocks are written."""
    digest = hashlib.sha256(str(cell.canonical()).encode()).digest()
    return np.random.default_rng([*numbers, int.from_bytes(digest[:8], "big")])
