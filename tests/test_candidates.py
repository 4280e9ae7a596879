"""Candidate expansion against a brute-force canonical form over all block orders."""

import contextlib
import itertools
import math
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brute_force import as_rows, least_order, plain_expand, reordered
from pnas_fast import _candidates
from pnas_fast.candidates import (
    Candidates,
    canonical_keys,
    count_distinct,
    expand,
    expand_batches,
    one_block_cells,
)
from pnas_fast.space import OPERATIONS, CellError

Int8 = npt.NDArray[np.int8]


def check_expansion(codes: Int8, operations: list[int]) -> None:
    found = expand(codes, [OPERATIONS[code] for code in operations])
    cells, parents = plain_expand(codes, operations)
    assert found.codes.dtype == np.int8
    assert found.parent.dtype == np.int32
    np.testing.assert_array_equal(found.codes, np.array(cells))
    np.testing.assert_array_equal(found.parent, parents)


def random_cells(seed: int, count: int, blocks: int, operations: int = 8) -> Int8:
    limits = [[2 + block, operations] * 2 for block in range(blocks)]
    return np.random.default_rng(seed).integers(0, limits, (count, blocks, 4), dtype=np.int8)


@st.composite
def parent_sets(draw: st.DrawFn) -> Int8:
    """Few operations, so that twins abound; some cells come again in another order or mirrored."""
    blocks = draw(st.integers(1, 4))
    operations = draw(st.integers(1, 2))
    limits = [[1 + block, operations - 1] * 2 for block in range(blocks)]
    cell = st.tuples(*(st.tuples(*(st.integers(0, limit) for limit in row)) for row in limits))
    parents = draw(st.lists(cell, min_size=1, max_size=4))
    for original in draw(st.lists(st.sampled_from(parents), max_size=3)):
        order = draw(st.permutations(range(blocks)))
        parents.append(reordered(original, tuple(order)) or original)
    mirrored = [draw(st.booleans()) for _ in parents]
    codes = np.array(draw(st.permutations(parents)), np.int8)
    codes[mirrored] = codes[mirrored][..., [2, 3, 0, 1]]
    return codes


def test_one_block_cells_are_all_sorted_pairs_in_order() -> None:
    cells = one_block_cells()
    assert cells.dtype == np.int8
    assert cells.shape == (136, 1, 4)
    rows = [as_rows(cell)[0] for cell in cells]
    assert rows == sorted(set(rows))
    assert all(row[:2] <= row[2:] for row in rows)
    assert len(one_block_cells(["identity"])) == 3


def test_136_one_block_cells_expand_to_31620() -> None:
    check_expansion(one_block_cells(), list(range(8)))
    assert len(expand(one_block_cells()).codes) == 31_620


def test_all_two_block_cells_expand_to_10979688_distinct_ones() -> None:
    codes = expand(expand(one_block_cells()).codes).codes
    assert len(codes) == 10_979_688
    keys = np.sort(canonical_keys(codes))
    assert (keys[1:] > keys[:-1]).all()


@pytest.mark.parametrize(
    ("operations", "blocks"), [([0, 3, 4, 7], 2), ([5, 2], 3), ([6], 3), ([1], 4)], ids=str
)
def test_whole_levels_of_restricted_spaces(operations: list[int], blocks: int) -> None:
    names = [OPERATIONS[code] for code in operations]
    shuffle = np.random.default_rng(blocks).permutation
    codes = one_block_cells(names)
    for level in range(1, blocks):
        check_expansion(codes, sorted(operations))
        assert len(codes) == count_distinct(level, names)
        codes = shuffle(expand(codes, names).codes)
    assert len(codes) == count_distinct(blocks, names)


@settings(max_examples=60, deadline=None)
@given(parent_sets(), st.sampled_from([[0], [1], [7], [0, 1]]))
def test_any_parents_expand_as_plain_python_does(codes: Int8, operations: list[int]) -> None:
    check_expansion(codes, operations)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_random_parents_of_the_full_space(blocks: int) -> None:
    check_expansion(random_cells(blocks, 7 - blocks, blocks), [0, 5])


def test_one_parent_without_any_symmetry_can_still_repeat_itself() -> None:
    # Three twins a, b, c and a block reading (a, b). Reading (b, c) or (c, a) next gives the same
    # chain, with the old block first or last, though no automorphism moves a, b or c.
    twin = [0, 0, 0, 0]
    codes = np.array([[twin, twin, twin, [2, 0, 3, 1]]], np.int8)
    check_expansion(codes, [0, 1])


def test_a_parent_that_cannot_make_a_candidate_does_not_take_it() -> None:
    # The first parent gets no sep5x5 block, so only the second makes this pair of blocks.
    codes = np.array([[[0, 0, 0, 0]], [[0, 1, 0, 1]]], np.int8)
    check_expansion(codes, [0])
    assert [[0, 1, 0, 1], [0, 0, 0, 0]] in expand(codes, OPERATIONS[:1]).codes.tolist()


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_parents_that_are_given_again_add_nothing(blocks: int) -> None:
    codes = random_cells(blocks, 6, blocks)
    expected = expand(codes)
    orders = itertools.permutations(range(blocks))
    others = [reordered(as_rows(cell), order) for order in orders for cell in codes]
    again = np.array([rows for rows in others if rows is not None], np.int8)
    for more in (codes, codes[:, :, [2, 3, 0, 1]], again, again[::-1]):
        found = expand(np.concatenate([codes, more]))
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.parent, expected.parent)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_one_parent(blocks: int) -> None:
    check_expansion(random_cells(blocks + 10, 1, blocks), list(range(8)))


def test_blocks_that_look_alike_are_not_one_block_used_twice() -> None:
    twin = [0, 0, 0, 0]
    found = expand(np.array([[twin, twin]], np.int8), ["identity"]).codes[:, 2].tolist()
    assert [2, 4, 2, 4] in found
    assert [2, 4, 3, 4] in found
    assert [3, 4, 3, 4] not in found


@pytest.mark.parametrize("batch", [1, 1000, 3000, 10**9])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_batches_are_the_expansion_in_parts(blocks: int, batch: int) -> None:
    codes = random_cells(blocks, 40, blocks, operations=3)
    parts = list(expand_batches(codes, batch=batch))
    whole = expand(codes)
    np.testing.assert_array_equal(np.concatenate([part.codes for part in parts]), whole.codes)
    np.testing.assert_array_equal(np.concatenate([part.parent for part in parts]), whole.parent)
    largest_parent = np.bincount(whole.parent).max()
    assert all(0 < len(part.parent) <= max(batch, largest_parent) for part in parts)


def test_batches_follow_the_parents_as_they_were_given() -> None:
    codes = random_cells(0, 9, 3)
    expected = expand(codes)
    batches = expand_batches(codes, batch=1)
    codes[:] = 127
    np.testing.assert_array_equal(np.concatenate([part.codes for part in batches]), expected.codes)


def test_streaming_many_candidates_takes_no_more_memory_than_few() -> None:
    def peak(parents: int) -> int:
        codes = random_cells(1, parents, 4)
        tracemalloc.start()
        total = sum(len(part.parent) for part in expand_batches(codes, batch=10_000))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total > 1000 * parents
        return most

    assert peak(1000) < 1.2 * peak(20) + 1000 * 64


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_the_number_of_threads_changes_nothing(blocks: int) -> None:
    codes = random_cells(3, 300, blocks, operations=4)
    expected = Candidates(*_candidates.Expander(codes).expand(0, 300, 0b10111011, 1))
    for threads in (2, 7, 64):
        found = Candidates(*_candidates.Expander(codes).expand(0, 300, 0b10111011, threads))
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.parent, expected.parent)
        keys = _candidates.canonical_keys(found.codes, threads)
        np.testing.assert_array_equal(keys, _candidates.canonical_keys(found.codes, 1))


@pytest.mark.parametrize("operations", [1, 2, 8])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_keys_spell_the_canonical_form(blocks: int, operations: int) -> None:
    codes = random_cells(blocks, 60, blocks, operations)
    forms = [least_order(as_rows(cell)) for cell in codes]
    for key, form in zip(canonical_keys(codes).tolist(), forms, strict=True):
        spelled = blocks
        for value, bits in zip(sum(form, ()), itertools.cycle([3])):
            spelled = spelled << bits | value
        assert key == spelled << 12 * (5 - blocks)
    keys = canonical_keys(codes)
    assert np.argsort(keys, kind="stable").tolist() == sorted(range(len(forms)), key=forms.__getitem__)


def test_arrays_of_any_layout_are_read_and_left_alone() -> None:
    codes = random_cells(4, 12, 3)
    wide = np.zeros((24, 5, 8), np.int8)
    wide[::2, 1:4, ::2] = codes
    read_only = codes.copy()
    read_only.flags.writeable = False
    for given_codes in (np.asfortranarray(codes), wide[::2, 1:4, ::2], codes[::-1].copy()[::-1], read_only):
        before = given_codes.copy()
        np.testing.assert_array_equal(expand(given_codes).codes, expand(codes).codes)
        np.testing.assert_array_equal(canonical_keys(given_codes), canonical_keys(codes))
        np.testing.assert_array_equal(given_codes, before)


@pytest.mark.parametrize(
    ("block", "column", "value", "message"),
    [
        (0, 0, 2, "row 2, block 0, column in1: found 2, allowed are 0 to 1"),
        (1, 2, 3, "row 2, block 1, column in2: found 3, allowed are 0 to 2"),
        (2, 2, 5, "row 2, block 2, column in2: found 5, allowed are 0 to 3"),
        (1, 0, -1, "row 2, block 1, column in1: found -1, allowed are 0 to 2"),
        (0, 1, 8, "row 2, block 0, column op1: found 8, allowed are 0 to 7"),
        (2, 3, -128, "row 2, block 2, column op2: found -128, allowed are 0 to 7"),
        (2, 3, 127, "row 2, block 2, column op2: found 127, allowed are 0 to 7"),
    ],
)
def test_a_code_out_of_range_is_named(block: int, column: int, value: int, message: str) -> None:
    codes = random_cells(5, 4, 3)
    codes[2, block, column] = value
    for use in (expand, expand_batches, canonical_keys):
        with pytest.raises(ValueError, match=f"^codes {message}$"):
            use(codes)


@pytest.mark.parametrize("later", [0, 1, 100])
@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_a_block_that_reads_itself_or_a_later_one_is_named(block: int, column: int, later: int) -> None:
    codes = random_cells(7, 5, 4)
    codes[3, block, column] = 2 + block + later
    name = {0: "in1", 2: "in2"}[column]
    message = f"^codes row 3, block {block}, column {name}: found {2 + block + later}, allowed are 0 to"
    for use in (expand, expand_batches, canonical_keys):
        with pytest.raises(CellError, match=message):
            use(codes)


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[st.integers(0, 6)] * 2, st.integers(3, 5)), st.data())
def test_any_bytes_are_cells_or_refused(shape: tuple[int, ...], data: st.DataObject) -> None:
    """No crash and no read outside an array; the latter shows under `make sanitize`."""
    largest = data.draw(st.sampled_from([1, 3, 127]))
    values = st.integers(data.draw(st.sampled_from([0, -128])), largest)
    flat = data.draw(st.lists(values, min_size=math.prod(shape), max_size=math.prod(shape)))
    for use in (expand, canonical_keys):
        with contextlib.suppress(CellError):
            use(np.array(flat, np.int8).reshape(shape))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((3, 2, 4)), r"float64 of shape \(3, 2, 4\), allowed are int8 of shape"),
        (np.zeros((3, 2, 4), np.int64), "int64"),
        (np.zeros((3, 2, 4), np.uint8), "uint8"),
        (np.zeros((3, 2, 4), bool), "bool"),
        (None, "object"),
        (np.zeros((2, 4), np.int8), r"shape \(2, 4\)"),
        (np.zeros((3, 2, 5), np.int8), r"shape \(3, 2, 5\)"),
        (np.int8(0), r"shape \(\)"),
        (np.zeros((3, 0, 4), np.int8), "0 blocks a cell"),
        (np.zeros((3, 6, 4), np.int8), "6 blocks a cell"),
    ],
)
def test_wrong_types_and_shapes_are_refused(codes: Int8, message: str) -> None:
    for use in (expand, expand_batches, canonical_keys):
        with pytest.raises(ValueError, match=message) as caught:
            use(codes)
        assert "\n" not in str(caught.value)


def test_parents_must_be_some_and_leave_room_for_a_block() -> None:
    too_many = np.broadcast_to(np.zeros((1, 1, 4), np.int8), (2**31, 1, 4))
    for use in (expand, expand_batches):
        with pytest.raises(ValueError, match="codes hold 0 parents, allowed are 1 to 2147483647"):
            use(np.zeros((0, 2, 4), np.int8))
        with pytest.raises(ValueError, match="codes hold 2147483648 parents"):
            use(too_many)
        with pytest.raises(ValueError, match="codes have 5 blocks a cell, allowed are 1 to 4"):
            use(random_cells(6, 2, 5))
    assert canonical_keys(np.zeros((0, 2, 4), np.int8)).shape == (0,)


@pytest.mark.parametrize("operations", [[], ["sep3x3", "sep3x3"], ["conv"], "sep3x3"])
def test_wrong_operations_are_refused(operations: list[str]) -> None:
    codes = one_block_cells()
    for use in (
        lambda: one_block_cells(operations),
        lambda: expand(codes, operations),
        lambda: expand_batches(codes, operations),
        lambda: count_distinct(2, operations),
    ):
        with pytest.raises(ValueError, match="operation"):
            use()


@pytest.mark.parametrize("batch", [0, -5, 2.5, True])
def test_wrong_batches_are_refused(batch: int) -> None:
    with pytest.raises(ValueError, match=r"^batch is .*, allowed are integers of 1 or more$"):
        expand_batches(one_block_cells(), batch=batch)


def test_a_missing_compiled_module_says_how_to_build_it() -> None:
    script = "import sys; sys.modules['pnas_fast._candidates'] = None; import pnas_fast.candidates"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the compiled module pnas_fast._candidates is not usable")
    assert last.endswith("pip install -e .")


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((3, 2, 4), np.int32),
        np.zeros((3, 2, 4)),
        np.zeros((3, 2), np.int8),
        np.zeros((3, 2, 3), np.int8),
        np.zeros((3, 2, 2), np.int8),
        np.zeros((3, 0, 4), np.int8),
        np.zeros((3, 6, 4), np.int8),
        np.zeros((3, 2, 8), np.int8)[:, :, ::2],
        None,
    ],
)
def test_the_compiled_module_refuses_other_types_and_shapes(codes: Any) -> None:
    for function in (_candidates.Expander, lambda given: _candidates.canonical_keys(given, 1)):
        with pytest.raises((ValueError, TypeError)):
            function(codes)


def test_compiled_expansion_ends_at_four_blocks() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 5, 4\), allowed is \(M, b, 4\), b from 1 to 4"):
        _candidates.Expander(np.zeros((3, 5, 4), np.int8))
