"""Counting distinct cells, against listing them."""

import itertools

import numpy as np
import pytest

from brute_force import least_order
from pnas_fast.candidates import canonical_keys, count_distinct, expand, expand_batches, one_block_cells
from pnas_fast.counting import count_new_blocks, share_of_space
from pnas_fast.space import OPERATIONS


@pytest.mark.parametrize("operations", [1, 2, 3])
def test_counting_agrees_with_listing_by_brute_force(operations: int) -> None:
    blocks = {1: 3, 2: 3, 3: 2}[operations]
    rows = [
        [(*one, *two) for one, two in itertools.combinations_with_replacement(sides, 2)]
        for sides in (list(itertools.product(range(2 + block), range(operations))) for block in range(blocks))
    ]
    for count in range(1, blocks + 1):
        distinct = {least_order(cell) for cell in itertools.product(*rows[:count])}
        assert count_distinct(count, OPERATIONS[:operations]) == len(distinct)


def test_counting_agrees_with_expansion_to_five_blocks() -> None:
    names = OPERATIONS[2:3]
    codes = one_block_cells(names)
    for blocks in range(2, 6):
        codes = expand(codes, names).codes
        assert len(codes) == count_distinct(blocks, names)
    assert len(np.unique(canonical_keys(codes))) == len(codes)


def test_counting_agrees_with_streaming_two_operations_to_five_blocks() -> None:
    names = OPERATIONS[:2]
    codes = one_block_cells(names)
    for _ in range(3):
        codes = np.random.default_rng(0).permutation(expand(codes, names).codes)
    assert count_distinct(5, names) == sum(len(part.parent) for part in expand_batches(codes, names))


@pytest.mark.parametrize("operations", [1, 3, 8])
def test_new_blocks_are_the_sorted_pairs_of_sides(operations: int) -> None:
    names = OPERATIONS[:operations]
    assert count_new_blocks(0, names) == len(one_block_cells(names))
    # A chain: no two of the blocks that may be added to it give the same cell.
    chain = np.array([[[0, 0, 1, 0], [1, 0, 2, 0], [2, 0, 3, 0]]], np.int8)
    assert count_new_blocks(3, names) == len(expand(chain, names).codes)


def test_the_share_of_a_space() -> None:
    assert share_of_space(31_620, 2) == 1
    assert share_of_space(1, 1, OPERATIONS[:1]) == pytest.approx(1 / 3)


def test_counts_of_the_full_space() -> None:
    assert [count_distinct(blocks) for blocks in (1, 2, 3)] == [136, 31_620, 10_979_688]


@pytest.mark.parametrize("blocks", [0, 6, -1, 2.0, True])
def test_counting_refuses_other_numbers_of_blocks(blocks: int) -> None:
    with pytest.raises(ValueError, match=r"^blocks is .*, allowed are 1 to 5$"):
        count_distinct(blocks)
