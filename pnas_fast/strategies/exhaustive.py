"""Every cell of a small space, or a sample of a large one: what a table of measurements is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pnas_fast.candidates import canonical_keys, expand, one_block_cells
from pnas_fast.counting import count_distinct
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Proposal, StrategyError, Trial
from pnas_fast.space import Cell, Codes
from pnas_fast.strategies.failures import Failures

STREAM = 6


class Exhaustive:
    """All distinct cells of 1, 2, … ``blocks`` blocks, each trained ``replicas`` times.

    Replica 0 of all cells comes first, then replica 1, and so on, so that a search that is stopped has the
    whole space once. Of the level that does not fit into the cells that are left, a uniform sample of its
    distinct cells is taken, which holds every smaller one, and none of greater levels.

    Args:
        blocks: of the largest cells.
        operations: that cells are made of.
        cells: at most so many; 0 for all.
        replicas: trainings of each, 1 or more.
        epochs: of each child.
        seed: of the sample, 0 or more.
        aims: whose limits cells keep: others are left out, after the sample; where none keeps them, all are
            left out but those that break them least.

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: fewer than one replica.
    """

    def __init__(
        self, blocks: int, operations: Sequence[str], cells: int, replicas: int, epochs: int, seed: int,
        aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        if replicas < 1:
            raise StrategyError(f"replicas {replicas}, allowed is 1 and more")
        levels = [(codes, aims.violations(codes)) for codes in _levels(blocks, operations, cells, seed)]
        least = min(violations.min() for _, violations in levels)
        self._cells = [
            Cell.from_codes(row).canonical()
            for codes, violations in levels
            for row in codes[violations <= least]
        ]
        self._replicas, self._epochs = replicas, epochs
        self._failures = Failures()
        self._asked = self._told = 0

    @property
    def planned(self) -> int:
        """How many proposals it will make."""
        return self._replicas * len(self._cells)

    def ask(self) -> Sequence[Proposal]:
        """All cells' next replica, when all that were asked for are told."""
        if self._told < self._asked or self._asked == self.planned:
            return []
        replica = self._asked // len(self._cells)
        self._asked += len(self._cells)
        return [Proposal(cell, self._epochs, replica, {"level": len(cell.blocks)}) for cell in self._cells]

    def tell(self, trial: Trial) -> None:
        """Count failures.

        Raises:
            StrategyError: too many children failed one after another.
        """
        self._told += 1
        self._failures.tell(trial)


def level_sizes(blocks: int, operations: Sequence[str], cells: int) -> list[int]:
    """How many cells of 1, 2, … blocks there will be, of at most ``cells``, 0 being all."""
    sizes, left = list[int](), float(cells or "inf")
    for level in range(1, blocks + 1):
        size = int(min(count_distinct(level, operations), left))
        if size:
            sizes.append(size)
        left -= size
    return sizes


def _levels(blocks: int, operations: Sequence[str], cells: int, seed: int) -> Iterator[Codes]:
    """The cells of each level in canonical order; the last level may be a sample."""
    codes = one_block_cells(operations)
    for level, size in enumerate(level_sizes(blocks, operations, cells), 1):
        if level > 1:
            codes = expand(codes, operations).codes
        rows = np.argsort(canonical_keys(codes))
        if size < len(codes):
            rng = np.random.default_rng([seed, STREAM, level])
            rows = rows[np.sort(rng.permutation(len(codes))[:size])]
        yield codes[rows]
