"""How many distinct cells a search space holds, counted without listing them.

Burnside's lemma: the classes of cells under reordering of blocks number the average, over all
permutations of named blocks, of the cells that a permutation leaves as they are. Acyclic cells fixed
by a permutation are counted by inclusion and exclusion over its cycles of sinks, as Robinson counts
acyclic digraphs ("Counting unlabeled acyclic digraphs", 1977).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import product

from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, CellError, check_operations

Cycles = tuple[int, ...]


def count_distinct(blocks: int, operations: Sequence[str] = OPERATIONS) -> int:
    """The exact number of distinct cells of ``blocks`` blocks.

    Two cells are the same when swapping the sides of blocks and reordering blocks, with references
    renamed, turns one into the other (docs/method.md, 1.4): 136, 31,620 and 10,979,688 for 1 to 3 blocks
    of the eight operations.

    Args:
        blocks: 1 to `MAX_BLOCKS`.
        operations: the operations the search space is restricted to.

    Raises:
        CellError: a number of blocks or an operation list outside the search space.
    """
    if isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= MAX_BLOCKS:
        raise CellError(f"blocks is {blocks!r}, allowed are 1 to {MAX_BLOCKS}")
    choices = len(check_operations(operations))
    total = sum(
        (Fraction(_fixed(cycles, choices), _centraliser(cycles)) for cycles in _partitions(blocks, blocks)),
        Fraction(0),
    )
    return int(total)


def share_of_space(candidates: int, blocks: int, operations: Sequence[str] = OPERATIONS) -> float:
    """The part, in [0, 1], that so many of the distinct cells of ``blocks`` blocks are of all.

    Raises:
        CellError: as `count_distinct`.
    """
    return candidates / count_distinct(blocks, operations)


def count_new_blocks(blocks: int, operations: Sequence[str] = OPERATIONS) -> int:
    """The blocks that a cell of ``blocks`` blocks can be extended by, the sides of each sorted.

    Raises:
        CellError: an operation list outside the search space.
    """
    sides = (CELL_INPUTS + blocks) * len(check_operations(operations))
    return sides * (sides + 1) // 2


def _partitions(total: int, largest: int) -> Iterator[Cycles]:
    """The cycle types of the permutations of ``total`` things, as descending cycle lengths."""
    if total == 0:
        yield ()
    for length in range(min(total, largest), 0, -1):
        for rest in _partitions(total - length, length):
            yield (length, *rest)


def _centraliser(cycles: Cycles) -> int:
    """The permutations that commute with one of this cycle type: n! over how many have the type."""
    return math.prod(length**count * math.factorial(count) for length, count in Counter(cycles).items())


@cache
def _fixed(cycles: Cycles, operations: int) -> int:
    """Cells of named blocks that a permutation with these cycles leaves as they are.

    Some non-empty set of cycles consists of sinks; summing over all such sets with alternating signs
    counts every cell once.
    """
    if not cycles:
        return 1
    total = 0
    for sinks in product((False, True), repeat=len(cycles)):
        chosen = tuple(length for length, sink in zip(cycles, sinks, strict=True) if sink)
        rest = tuple(length for length, sink in zip(cycles, sinks, strict=True) if not sink)
        if chosen:
            ways = math.prod(_rows(length, rest, operations) for length in chosen)
            total -= (-1) ** len(chosen) * ways * _fixed(rest, operations)
    return total


def _rows(length: int, rest: Cycles, operations: int) -> int:
    """Blocks that a cycle of this length may repeat, reading cell inputs and the blocks in ``rest``.

    One block of the cycle determines the others, and must come back to itself after ``length`` steps:
    its two sides are each fixed by those steps, or swapped by them.
    """
    fixed = operations * (CELL_INPUTS + sum(other for other in rest if length % other == 0))
    swapped = operations * sum(other // 2 for other in rest if other == 2 * math.gcd(other, length))
    return fixed * (fixed + 1) // 2 + swapped
