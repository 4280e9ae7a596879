"""Cells drawn, and the cells next to a cell."""

import itertools
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells import PNASNET5, cells
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Block, Cell, CellError
from pnas_fast.space.neighbours import draw, mutate, neighbours


def orders(cell: Cell) -> list[Cell]:
    """The cell in every order that its blocks can be written in."""
    found = []
    for order in itertools.permutations(range(len(cell))):
        place = {0: 0, 1: 1} | {2 + old: 2 + new for new, old in enumerate(order)}
        rows = [[(place[source], name) for source, name in cell.blocks[old].sides] for old in order]
        if all(source < 2 + index for index, row in enumerate(rows) for source, _ in row):
            found.append(Cell(tuple(Block(*left, *right) for left, right in rows)))
    return found


def changed_in_one_field(cell: Cell, operations: tuple[str, ...]) -> set[Cell]:
    """Everything that differs in one field from a cell as it is written, canonical."""
    found = set()
    for index, column in itertools.product(range(len(cell)), range(4)):
        allowed = range(2 + index) if column % 2 == 0 else map(OPERATIONS.index, operations)
        for value in allowed:
            codes = cell.codes
            codes[index, column] = value
            found.add(Cell.from_codes(codes).canonical())
    return found


@settings(max_examples=60)
@given(cells(max_blocks=4, operations=3))
def test_neighbours_are_what_one_field_changes_in_any_order(cell: Cell) -> None:
    names = OPERATIONS[:3]
    expected = set().union(*(changed_in_one_field(order, names) for order in orders(cell)))
    found = neighbours(cell, names)
    assert set(found) == expected - {cell.canonical()}
    assert len(set(found)) == len(found)
    assert [neighbour.codes.tolist() for neighbour in found] == sorted(n.codes.tolist() for n in found)


@settings(max_examples=60)
@given(cells(), st.randoms(use_true_random=False), st.integers(0, 2**32))
def test_the_order_of_blocks_has_no_influence(cell: Cell, chance: Random, seed: int) -> None:
    other = chance.choice(orders(cell))
    assert neighbours(other, OPERATIONS) == neighbours(cell, OPERATIONS)
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    assert mutate(other, OPERATIONS, rngs[0]) == mutate(cell, OPERATIONS, rngs[1])


@settings(max_examples=60)
@given(cells(max_blocks=3, operations=2))
def test_whoever_is_next_to_a_cell_has_it_next_to_itself(cell: Cell) -> None:
    names = OPERATIONS[:2]
    for neighbour in neighbours(cell, names):
        assert cell.canonical() in neighbours(neighbour, names)


@settings(max_examples=60)
@given(cells(), st.integers(0, 2**32), st.integers(1, len(OPERATIONS)))
def test_a_mutation_is_a_neighbour_whatever_the_operations(cell: Cell, seed: int, count: int) -> None:
    used = {name for block in cell.blocks for _, name in block.sides}
    names = tuple(dict.fromkeys([*sorted(used), *OPERATIONS]))[: max(count, len(used))]
    before = str(cell)
    child = mutate(cell, names, np.random.default_rng(seed))
    assert child in neighbours(cell, names)
    assert child == child.canonical() != cell.canonical()
    assert str(cell) == before


TWINS = "0:sep3x3+0:sep3x3,0:sep3x3+0:sep3x3,2:identity+0:identity"


@pytest.mark.parametrize("text", ["0:sep3x3+0:sep3x3", "0:sep3x3+1:identity", TWINS, PNASNET5])
def test_every_neighbour_occurs(text: str) -> None:
    cell = Cell.parse(text)
    rng = np.random.default_rng(1)
    found = Counter(mutate(cell, OPERATIONS, rng) for _ in range(4_000))
    assert set(found) == set(neighbours(cell, OPERATIONS))


@pytest.mark.parametrize("blocks", range(1, MAX_BLOCKS + 1))
def test_one_operation_leaves_the_inputs(blocks: int) -> None:
    cell = draw(blocks, ["identity"], np.random.default_rng(blocks))
    found = neighbours(cell, ["identity"])
    assert found
    rng = np.random.default_rng(0)
    assert {mutate(cell, ["identity"], rng) for _ in range(1_000)} == set(found)


def test_the_other_of_two_twins_is_no_neighbour() -> None:
    twins = Cell.parse(TWINS)
    same = Cell.parse("0:sep3x3+0:sep3x3,0:sep3x3+0:sep3x3,3:identity+0:identity")
    assert same.canonical() == twins.canonical()
    assert twins.canonical() not in neighbours(twins, OPERATIONS)


def test_how_many_there_are() -> None:
    assert len(neighbours(Cell.parse("0:sep3x3+1:identity"), OPERATIONS)) == 16
    rng = np.random.default_rng(0)
    counts = [len(neighbours(draw(5, OPERATIONS, rng), OPERATIONS)) for _ in range(200)]
    assert np.mean(counts) == pytest.approx(107.4, abs=1.0)


def test_every_field_is_drawn_uniformly() -> None:
    rng = np.random.default_rng(0)
    codes = np.array([draw(3, OPERATIONS, rng).codes for _ in range(4_000)])
    for index, column in itertools.product(range(3), range(4)):
        values = 2 + index if column % 2 == 0 else len(OPERATIONS)
        counts = np.bincount(codes[:, index, column], minlength=values)
        assert len(counts) == values
        assert np.abs(counts - 4_000 / values).max() < 5 * np.sqrt(4_000 / values)


def test_operations_are_drawn_from_the_list_in_whatever_order() -> None:
    names = ("identity", "sep3x3")
    drawn = [draw(5, given, np.random.default_rng(7)) for given in (names, names[::-1])]
    assert drawn[0] == drawn[1]
    assert {name for block in drawn[0].blocks for _, name in block.sides} == set(names)


@pytest.mark.parametrize("blocks", [-1, 0, MAX_BLOCKS + 1])
def test_no_cell_of_so_many_blocks_is_drawn(blocks: int) -> None:
    with pytest.raises(CellError, match=f"{blocks} blocks, allowed are 1 to {MAX_BLOCKS}"):
        draw(blocks, OPERATIONS, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no operations given"),
        (("sep9x9",), "unknown operation 'sep9x9'"),
        (("identity", "identity"), "name one twice"),
        (("identity",), "operation 'sep3x3' is not in this search space"),
    ],
)
def test_operations_that_do_not_fit_the_cell(names: tuple[str, ...], message: str) -> None:
    cell = Cell.parse("0:sep3x3+1:identity")
    with pytest.raises(CellError, match=message):
        mutate(cell, names, np.random.default_rng(0))
    with pytest.raises(CellError, match=message):
        neighbours(cell, names)
