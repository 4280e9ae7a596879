"""Canonical form and expansion by trying everything: the oracle for the compiled engine."""

import itertools

import numpy as np
import numpy.typing as npt

Row = tuple[int, ...]
Rows = tuple[Row, ...]
Int8 = npt.NDArray[np.int8]


def reordered(rows: Rows, order: tuple[int, ...]) -> Rows | None:
    """The blocks in another order, sides sorted; None where a block would come before its input."""
    place = {0: 0, 1: 1} | {2 + old: 2 + new for new, old in enumerate(order)}
    result = []
    for new, old in enumerate(order):
        in1, op1, in2, op2 = rows[old]
        if max(place[in1], place[in2]) >= 2 + new:
            return None
        result.append(sum(sorted([(place[in1], op1), (place[in2], op2)]), ()))
    return tuple(result)


def least_order(rows: Rows) -> Rows:
    """The canonical form, by trying every order."""
    orders = itertools.permutations(range(len(rows)))
    return min(form for order in orders if (form := reordered(rows, order)) is not None)


def as_rows(cell: Int8) -> Rows:
    return tuple(map(tuple, cell.tolist()))


def plain_expand(codes: Int8, operations: list[int]) -> tuple[list[list[Row]], list[int]]:
    """Expansion one candidate at a time, remembering every canonical form."""
    sides = list(itertools.product(range(2 + codes.shape[1]), operations))
    seen: set[Rows] = set()
    cells, parents = [], []
    for parent, cell in enumerate(codes):
        for first, second in itertools.combinations_with_replacement(sides, 2):
            rows = (*as_rows(cell), first + second)
            form = least_order(rows)
            if form not in seen:
                seen.add(form)
                cells.append(list(rows))
                parents.append(parent)
    return cells, parents
