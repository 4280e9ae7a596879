"""A part of the first level: every side as often, and the second level grows from all one-block cells."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.candidates import expand, one_block_cells
from pnas_fast.protocols import Measurement, Trial
from pnas_fast.space import OPERATIONS, Cell
from pnas_fast.strategies.first_level import balanced
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.surrogate import Growth

pytestmark = pytest.mark.usefixtures("few_steps")


@given(st.integers(16, 136), st.integers(0, 5))
def test_every_side_is_in_about_as_many_cells(count: int, seed: int) -> None:
    chosen = balanced(one_block_cells(), count, seed)
    assert len(np.unique(chosen, axis=0)) == count
    sides = Counter(tuple(row[0, side : side + 2].tolist()) for row in chosen for side in (0, 2))
    assert len(sides) == 16
    if count <= 100:  # at the end there is not much to choose from
        assert max(sides.values()) - min(sides.values()) <= 3


def test_another_seed_draws_others_and_a_larger_part_holds_a_smaller_one() -> None:
    every = one_block_cells()
    assert balanced(every, 40, 1).tolist() != balanced(every, 40, 2).tolist()
    small, large = ({str(row) for row in balanced(every, count, 1)} for count in (40, 60))
    assert small < large
    assert balanced(every, 500, 1).tolist() == every.tolist()


def test_the_second_level_grows_from_all_one_block_cells_but_those_that_failed() -> None:
    operations = OPERATIONS[:2]
    strategy = Progressive(Growth(2, 10_000, operations, first=4), 1, seed=0)
    first = strategy.ask()
    assert len(first) == 4
    assert strategy.planned == 4 + 10_000
    for number, proposal in enumerate(first, 1):
        failed = number == 2
        measured = Measurement("failed" if failed else "done", {"accuracy": 0.5 + number / 100}, None)
        strategy.tell(Trial(number, proposal, measured))
    second = {str(proposal.cell.codes) for proposal in strategy.ask()}
    others = [row for row in one_block_cells(operations) if Cell.from_codes(row) != first[1].cell]
    assert second == {str(row) for row in expand(np.array(others), operations).codes}
    assert len(second) < len(expand(one_block_cells(operations), operations).codes)
