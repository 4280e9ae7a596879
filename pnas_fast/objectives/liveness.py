"""Which activations of a cell live at each step of its inference, for many cells at once.

A cell's nodes run in the order in which an export writes them: its inputs are aligned, then block by block
the left side, the right side and their sum, at last the concatenation. Operations with a convolution read
their input rectified: the first of them makes that tensor, in place of the input where nobody reads that as
it is any more. Pools, and identities where they copy, read it as it is. Blocks are rectified for the
concatenation at the latest. All tensors live until they are last read; sums write over an operand that dies
with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Codes

Keys = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]
Whole = npt.NDArray[Any] | int

SIDES = (CELL_INPUTS + 1) * len(OPERATIONS)
"""Operations on each class of input."""

FIRST_NODE, REST = 0, SIDES
"""Works: a side's first node, which reads its input, and all others. To each an index of `SIDES` is added."""

SUM, SUM_IN_PLACE, ALIGN = 2 * SIDES, 2 * SIDES + 1, 2 * SIDES + 2
"""Works: a block's sum, with memory of its own or not; the alignment of H[c-1], just before the blocks."""

SHAPE = (3, 3, 2 * MAX_BLOCKS + 1, ALIGN + 1)
"""Of a table of steps: tensors that live of H[c-2], of H[c-1], of blocks and finished sides; the work."""

_NEVER = np.int8(127)
_IDENTITY = np.array([name == "identity" for name in OPERATIONS])
_POOLS = np.array(["pool" in name for name in OPERATIONS])
_SIDE_TIMES = 3


class Kind(Enum):
    """A cell's place, by the classes of inputs that an identity does not copy but convolves."""

    NORMAL = ()
    REDUCTION = (0, 1)
    FIRST = (0,)
    """After the stem, whose result H[c-2] is; rectified, it is H[c-1] and lives beyond the cell."""


def steps(codes: Codes, kind: Kind) -> Iterator[Keys]:
    """What lives and works at each step of cells int8 (M, b, 4): flat indices (M,) of a table of `SHAPE`."""
    lives = _Lives(codes, kind)
    yield _key((lives.inputs(-1, before=False)[0], 0), 0, ALIGN)
    for block in range(codes.shape[1]):
        finished: Counts = np.zeros(len(codes), np.int8)
        for side in range(2):
            time = _SIDE_TIMES * block + side
            work = lives.works[block][side]
            yield _key(lives.inputs(time), lives.blocks(block, time) + finished, FIRST_NODE + work)
            after = lives.inputs(time, before=False), lives.blocks(block, time, before=False) + finished
            yield _key(*after, REST + work)
            finished = finished + ~lives.copies[work]
        time = _SIDE_TIMES * block + 2
        in_place = (finished > 0) | lives.dies(block, time)
        work = np.where(in_place, SUM_IN_PLACE, SUM)
        yield _key(lives.inputs(time), lives.blocks(block, time) + finished, work)


def _key(inputs: tuple[Whole, Whole], blocks: Whole, work: Whole) -> Keys:
    older, newer = inputs
    key: Keys = np.asarray(older, np.int32) * SHAPE[1] + newer
    return (key * SHAPE[2] + blocks) * SHAPE[3] + work


class _Lives:
    """When each state of cells is read: (b + 2, M) times, as it is or rectified.

    Sides of block i run at 3 i and 3 i + 1, its sum at 3 i + 2.
    """

    def __init__(self, codes: Codes, kind: Kind) -> None:
        count, blocks = codes.shape[:2]
        pooled = np.tile(_POOLS, CELL_INPUTS + 1)
        self.copies = np.tile(_IDENTITY, CELL_INPUTS + 1)
        for source in kind.value:
            self.copies[source * len(OPERATIONS) : (source + 1) * len(OPERATIONS)] = False
        convolved = ~(pooled | self.copies)
        self.sources = codes[:, :, ::2].transpose(1, 2, 0).astype(np.intp)
        self.works = np.minimum(self.sources, CELL_INPUTS) * len(OPERATIONS)
        self.works += codes[:, :, 1::2].transpose(1, 2, 0)
        self.last = np.full((CELL_INPUTS + blocks, count), -1, np.int8)
        self.closed = self.last.copy()
        self.opened = np.full_like(self.last, _NEVER)
        for block in range(blocks):
            for side in range(2):
                time = _SIDE_TIMES * block + side
                at = self._where(convolved, block, side)
                self.closed[at] = time
                self.opened[at] = np.minimum(self.opened[at], time)
                self.last[self._where(pooled, block, side)] = time
            for side in range(2):
                self.last[self._where(self.copies, block, side)] = _SIDE_TIMES * block + 2
        if kind is Kind.FIRST:
            self.opened[0], self.closed[0] = _NEVER, -1
        end = self.opened[CELL_INPUTS:]
        np.minimum(end, _SIDE_TIMES * blocks, out=end)
        rectified = self.opened != _NEVER
        self.last[rectified] = np.maximum(self.last, self.opened)[rectified]

    def _where(
        self, chosen: npt.NDArray[np.bool_], block: int, side: int
    ) -> tuple[npt.NDArray[np.intp], ...]:
        cells = np.flatnonzero(chosen[self.works[block, side]])
        return self.sources[block, side, cells], cells

    def inputs(self, time: int, *, before: bool = True) -> tuple[Counts, Counts]:
        """Tensors of each of the cell's inputs while something reads at a time, or ``before=False`` after."""
        return self._input(0, time, before), self._input(1, time, before)

    def _input(self, state: int, time: int, before: bool) -> Counts:
        opened, closed, last = self.opened[state], self.closed[state], self.last[state]
        if before:
            plain = (last >= time) & ~((opened == time) & (last == time))
            rectified = (opened <= time) & (closed >= time)
        else:
            plain, rectified = last > time, (opened <= time) & (closed > time)
        found: Counts = plain.astype(np.int8) + rectified
        return found

    def blocks(self, count: int, time: int, *, before: bool = True) -> Counts:
        """Tensors of the first ``count`` blocks, likewise: one each, two while both forms are needed."""
        states = slice(CELL_INPUTS, CELL_INPUTS + count)
        opened, last = self.opened[states], self.last[states]
        both = (opened <= time) & (opened < last)
        both &= last >= time if before else last > time
        found: Counts = count + both.sum(axis=0, dtype=np.int8)
        return found

    def dies(self, block: int, time: int) -> Flags:
        """Whether a state that a block's identities copy is read for the last time by its sum."""
        cells = np.arange(len(self.last[0]))
        left, right = self.sources[block]
        found: Flags = (self.last[left, cells] == time) & self.copies[self.works[block, 0]]
        found |= (self.last[right, cells] == time) & self.copies[self.works[block, 1]]
        return found
