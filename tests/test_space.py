"""Cells as text, as codes, as values; and when two are the same."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from cells import PNASNET5, cells
from pnas_fast.space import Block, Cell, CellError, check_operations


def renamed(cell: Cell, order: tuple[int, ...], swaps: tuple[bool, ...]) -> Cell | None:
    """The cell with its blocks in another order and some sides swapped; None where that is not valid."""
    place = {0: 0, 1: 1} | {2 + old: 2 + new for new, old in enumerate(order)}
    blocks = []
    for new, old in enumerate(order):
        sides = [(place[source], operation) for source, operation in cell.blocks[old].sides]
        if any(source >= 2 + new for source, _ in sides):
            return None
        (in1, op1), (in2, op2) = reversed(sides) if swaps[old] else sides
        blocks.append(Block(in1, op1, in2, op2))
    return Cell(tuple(blocks))


@given(cells())
def test_text_and_codes_round_trip(cell: Cell) -> None:
    assert Cell.parse(str(cell)) == cell
    assert Cell.from_codes(cell.codes) == cell
    assert cell.codes.dtype == np.int8
    assert cell.codes.shape == (len(cell), 4)
    assert hash(Cell.parse(str(cell))) == hash(cell)


@given(cells(max_blocks=4, operations=3))
def test_canonical_is_the_least_of_all_orders_and_swaps(cell: Cell) -> None:
    variants = [
        variant
        for order in itertools.permutations(range(len(cell)))
        for swaps in itertools.product([False, True], repeat=len(cell))
        if (variant := renamed(cell, order, swaps)) is not None
    ]
    least = min(variants, key=lambda variant: variant.codes.tolist())
    assert cell.canonical() == least
    assert {variant.canonical() for variant in variants} == {least}


def test_twins_are_not_one_block_used_twice() -> None:
    twins = "0:sep3x3+0:sep3x3,0:sep3x3+0:sep3x3"
    used_twice = Cell.parse(f"{twins},2:identity+2:identity")
    both_used = Cell.parse(f"{twins},2:identity+3:identity")
    assert used_twice.canonical() != both_used.canonical()
    assert Cell.parse(f"{twins},3:identity+3:identity").canonical() == used_twice.canonical()


def test_pnasnet5_parses() -> None:
    cell = Cell.parse(PNASNET5)
    assert len(cell) == 5
    assert str(cell) == PNASNET5
    assert cell.codes[3].tolist() == [4, 0, 1, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "block 0: '' is not of the form"),
        ("0:sep3x3", "block 0: '0:sep3x3' is not of the form"),
        ("0:sep3x3+1:conv", "block 0 .*unknown operation 'conv', allowed are sep3x3 sep5x5"),
        ("0:sep3x3+2:identity", "block 0 .*input 2 does not exist there, allowed are 0 to 1"),
        ("0:sep3x3+1:identity,0:sep3x3+3:identity", "block 1 .*input 3 .*allowed are 0 to 2"),
        ("0:sep3x3+1:identity,", "block 1: '' is not of the form"),
        ("0:sep3x3+1:identity and more", "block 0: .* is not of the form"),
        (" 0:sep3x3+1:identity", "block 0: .* is not of the form"),
        ("0:sep3x3+1:identity\n", "block 0: .* is not of the form"),
        ("-1:sep3x3+1:identity", "block 0: .* is not of the form"),
        (",".join(["0:sep3x3+1:identity"] * 6), "cell has 6 blocks, allowed are 1 to 5"),
    ],
)
def test_malformed_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(CellError, match=message) as caught:
        Cell.parse(text)
    assert len(str(caught.value).splitlines()) == 1


def test_operations_outside_a_restricted_space_are_refused() -> None:
    with pytest.raises(
        CellError, match=r"block 0 .*'identity' is not in this search space, allowed are sep3x3$"
    ):
        Cell.parse("0:sep3x3+1:identity", operations=("sep3x3",))


def test_cells_are_immutable_and_not_empty() -> None:
    cell = Cell.parse("0:sep3x3+1:identity")
    with pytest.raises(AttributeError):
        cell.blocks = ()  # type: ignore[misc]
    with pytest.raises(CellError, match="0 blocks"):
        Cell(())


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 3), np.int8), "shape"),
        (np.zeros((1, 4)), "float64"),
        ([[0, 8, 0, 0]], "operation code 8, allowed are 0 to 7"),
        ([[0, 0, -1, 0]], "input -1 does not exist"),
    ],
)
def test_bad_codes_are_refused(codes: object, message: str) -> None:
    with pytest.raises(CellError, match=message):
        Cell.from_codes(codes)  # type: ignore[arg-type]


def test_operation_lists_are_put_in_code_order_and_checked() -> None:
    assert check_operations(["identity", "sep3x3"]) == ("sep3x3", "identity")
    with pytest.raises(CellError, match="no operations"):
        check_operations([])
    with pytest.raises(CellError, match="unknown operation 'conv9x9'"):
        check_operations(["conv9x9"])
    with pytest.raises(CellError, match="twice"):
        check_operations(["sep3x3", "sep3x3"])
