"""Costs that are sums over a cell's sides."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.objectives import AdditiveCost
from pnas_fast.protocols import Cost, Measurement, Proposal, Trial
from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Cell
from pnas_fast.space.neighbours import draw

RNG = np.random.default_rng(0)
MILLISECONDS = AdditiveCost("latency_ms", "ms", RNG.random((3, 8)), np.arange(5) + RNG.random(5))


def test_a_cost_is_a_constant_and_the_sum_over_the_sides() -> None:
    cost: Cost = MILLISECONDS
    for blocks in range(1, MAX_BLOCKS + 1):
        cells = [draw(blocks, OPERATIONS, RNG) for _ in range(20)]
        expected = [
            MILLISECONDS.const[blocks - 1]
            + sum(
                MILLISECONDS.table[min(of, CELL_INPUTS), OPERATIONS.index(operation)]
                for block in cell.blocks
                for of, operation in block.sides
            )
            for cell in cells
        ]
        found = cost.before(np.array([cell.codes for cell in cells]))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)
        trials = [Trial(0, Proposal(cell, 1), Measurement("done", {})) for cell in cells]
        assert [cost.of(trial) for trial in trials] == expected
    failed = Trial(0, Proposal(cells[0], 1), Measurement("failed", {}, "error"))
    assert math.isnan(cost.of(failed))


@given(st.integers(0, 2**32))
def test_the_order_of_blocks_has_no_say_in_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = AdditiveCost("x", "", 10.0 ** rng.uniform(-8, 8, (3, 8)), 10.0 ** rng.uniform(-8, 8, 5))
    cell = draw(5, OPERATIONS, rng)
    twins = np.array([cell.codes, cell.canonical().codes])
    one, other = cost.before(twins)
    assert one == other


def test_numbers_are_rounded_to_what_nobody_sees_and_integers_not_at_all() -> None:
    table = RNG.integers(0, 2**45, (3, 8)).astype(np.float64)
    cost = AdditiveCost("multiply_adds", "", table, np.arange(5.0))
    np.testing.assert_array_equal(cost.table, table)
    np.testing.assert_allclose(MILLISECONDS.table, AdditiveCost(**MILLISECONDS.values()).table, rtol=0)
    table = np.full((3, 8), 1 / 3)
    np.testing.assert_allclose(AdditiveCost("x", "", table, np.ones(5)).table, table, rtol=1e-11)


def test_whether_a_cell_costs_at_least_what_it_grew_from() -> None:
    assert AdditiveCost("x", "", np.zeros((3, 8)), np.zeros(5)).grows
    assert not AdditiveCost("x", "", np.zeros((3, 8)), np.array([1, 2, 3, 4, 3])).grows
    table = np.zeros((3, 8))
    table[1, 4] = -1
    assert not AdditiveCost("x", "", table, np.array([1, 2, 4, 6, 8])).grows
    assert AdditiveCost("x", "", table, np.array([1, 3, 5, 7, 9])).grows


@pytest.mark.parametrize(
    ("table", "const", "found"),
    [
        (np.zeros((2, 8)), np.zeros(5), r"table has shape \(2, 8\)"),
        (np.zeros((3, 8)), np.zeros(4), r"const has shape \(4,\)"),
        (np.full((3, 8), np.nan), np.zeros(5), "finite"),
    ],
)
def test_a_table_of_another_shape_is_refused(table: object, const: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"latency_ms: .*{found}"):
        AdditiveCost("latency_ms", "ms", table, const)  # type: ignore[arg-type]


def test_text_can_be_parsed_and_costed() -> None:
    cell = Cell.parse("0:identity+1:identity,2:sep3x3+0:identity")
    table = np.zeros((3, 8))
    table[2, OPERATIONS.index("sep3x3")] = 7
    assert AdditiveCost("x", "", table, np.arange(5.0)).before(cell.codes[np.newaxis]).tolist() == [8]
