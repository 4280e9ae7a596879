"""Candidate cells as arrays: expansion by one block, without isomorphic duplicates.

Codes are int8 (cells, blocks, 4) with columns in1, op1, in2, op2, numbered as in `pnas_fast.space`. Two
cells are the same when swapping the sides of blocks and reordering blocks, with references renamed,
turns one into the other; the compiled engine behind this module decides that with a canonical key.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pnas_fast.counting import count_distinct, count_new_blocks
from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, CellError, Codes, check_operations
from pnas_fast.threads import cores

try:
    from pnas_fast import _candidates
except ImportError as error:
    raise ImportError(
        f"the compiled module pnas_fast._candidates is not usable ({error}); build it with: pip install -e ."
    ) from error

__all__ = ["Candidates", "canonical_keys", "count_distinct", "expand", "expand_batches", "one_block_cells"]

COLUMNS = ("in1", "op1", "in2", "op2")

_THREADS = cores()
_MOST_PARENTS = int(np.iinfo(np.int32).max)


class Candidates(NamedTuple):
    """Cells of one block more than their parents.

    ``codes`` is int8 (M, b + 1, 4): the parent's rows exactly as given, then the new block with
    (in1, op1) <= (in2, op2). ``parent`` is int32 (M,), the parent's row in the array expanded.
    """

    codes: Codes
    parent: npt.NDArray[np.int32]


def one_block_cells(operations: Sequence[str] = OPERATIONS) -> Codes:
    """All distinct one-block cells, int8 (M, 1, 4), in lexicographic order (136 for eight operations).

    Raises:
        CellError: empty, unknown or repeated operations.
    """
    sides = itertools.product(range(CELL_INPUTS), _operation_codes(operations))
    pairs = list(itertools.combinations_with_replacement(sides, 2))
    return np.array(pairs, np.int8).reshape(-1, 1, 4)


def expand(codes: Codes, operations: Sequence[str] = OPERATIONS) -> Candidates:
    """All distinct cells that are one of the given cells plus a block.

    Candidates come by parent, then by new block in lexicographic order; of candidates that are the
    same the first is kept. Duplicate parents, or parents in another block order, add nothing.

    Args:
        codes: the parents, int8 (M, b, 4) with 1 <= b <= 4.
        operations: what the new block may use; the parents' blocks may use any.

    Raises:
        CellError: no parents, a wrong type or shape, a code out of range (named with its row, block
            and column), or an operation list outside the search space.
    """
    parents = _checked_parents(codes)
    allowed = _bits(_operation_codes(operations))
    return Candidates(*_candidates.Expander(parents).expand(0, len(parents), allowed, _THREADS))


def expand_batches(
    codes: Codes, operations: Sequence[str] = OPERATIONS, batch: int = 1 << 18
) -> Iterator[Candidates]:
    """`expand`'s candidates in the same order, in batches of at most ``batch`` that are never empty.

    A parent's candidates stay together (so a batch holds more than ``batch`` where one parent alone
    does). Memory in use grows with the parents and with ``batch``, not with the number of candidates.

    Raises:
        CellError: as `expand`, or a batch below 1; at the call, before anything is asked for.
    """
    parents = _checked_parents(codes)
    allowed = _bits(_operation_codes(operations))
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise CellError(f"batch is {batch!r}, allowed are integers of 1 or more")
    step = max(1, int(batch) // count_new_blocks(parents.shape[1], operations))
    return _batches(_candidates.Expander(parents), len(parents), step, allowed)


def _batches(
    expander: _candidates.Expander, parents: int, step: int, operations: int
) -> Iterator[Candidates]:
    for first in range(0, parents, step):
        part = Candidates(*expander.expand(first, min(first + step, parents), operations, _THREADS))
        if len(part.parent):
            yield part


def canonical_keys(codes: Codes) -> npt.NDArray[np.uint64]:
    """One key for each cell, uint64 (M,): equal exactly when the cells are the same.

    A key is the number of blocks, then the rows of the canonical form (the lexicographically least
    valid block order) at 12 bits each, so cells of equally many blocks are ordered by canonical form.

    Args:
        codes: int8 (M, b, 4) with 1 <= b <= 5.

    Raises:
        CellError: a wrong type or shape, or a code out of range.
    """
    checked = _checked_copy(_checked_shape(codes, MAX_BLOCKS))
    return _candidates.canonical_keys(checked, _THREADS)


def _operation_codes(operations: Sequence[str]) -> list[int]:
    return [OPERATIONS.index(name) for name in check_operations(operations)]


def _bits(operation_codes: list[int]) -> int:
    return sum(1 << code for code in operation_codes)


def _checked_parents(codes: Codes) -> Codes:
    given = _checked_shape(codes, MAX_BLOCKS - 1)
    if not 1 <= len(given) <= _MOST_PARENTS:
        raise CellError(f"codes hold {len(given)} parents, allowed are 1 to {_MOST_PARENTS}")
    return _checked_copy(given)


def _checked_shape(codes: Codes, most_blocks: int) -> Codes:
    given = np.asarray(codes)
    if given.dtype != np.int8 or given.ndim != 3 or given.shape[2] != 4:
        raise CellError(
            f"codes are {given.dtype} of shape {given.shape}, allowed are int8 of shape (cells, blocks, 4)"
        )
    if not 1 <= given.shape[1] <= most_blocks:
        raise CellError(f"codes have {given.shape[1]} blocks a cell, allowed are 1 to {most_blocks}")
    return given


def _checked_copy(given: Codes) -> Codes:
    """A private C-ordered copy of codes that are in range, which nobody can change afterwards."""
    codes = np.array(given, order="C")
    limits = np.empty(codes.shape[1:], np.int8)
    limits[:, ::2] = CELL_INPUTS + np.arange(len(limits))[:, np.newaxis]
    limits[:, 1::2] = len(OPERATIONS)
    wrong = (codes < 0) | (codes >= limits)
    if wrong.any():
        row, block, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        raise CellError(
            f"codes row {row}, block {block}, column {COLUMNS[column]}: found {codes[row, block, column]}, "
            f"allowed are 0 to {limits[block, column] - 1}"
        )
    return codes
