"""Which rows of a depthwise convolution meet: what is worked out before a kernel is compiled."""

import itertools

import pytest

from pnas_fast.kernels.triton.separable_parts import pairs_of_row
from pnas_fast.kernels.triton.strips import pairs_of_rows, rows_apart, rows_of_part

SPREADS = [(3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (7, 2, 1), (3, 1, 2), (3, 2, 2)]
"""Kernel, stride and dilation of every depthwise convolution of the space."""


def meetings(
    half: int, kernel: int, stride: int, dilation: int, pad: int, transposed: bool
) -> set[tuple[int, int]]:
    """(row of inputs, row of taps) that make an output row, by definition."""
    pairs = itertools.product(range(-20, 21), range(kernel))
    down = half * rows_apart(stride, dilation)
    if transposed:
        return {(row, tap) for row, tap in pairs if pad + down - stride * row == tap * dilation}
    return {(row, tap) for row, tap in pairs if row - stride * down == tap * dilation}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("spread", SPREADS, ids=str)
def test_parts_take_every_row_that_a_tile_needs_once(spread: tuple[int, int, int], transposed: bool) -> None:
    kernel, stride, dilation = spread
    for pad in range((kernel - 1) * dilation + 1):
        parts = [range(*rows_of_part(part, kernel, stride, dilation, pad, transposed)) for part in range(3)]
        upper, lower = ({row for part in own for row in parts[part]} for own in ((0, 1), (1, 2)))
        for half, rows in enumerate((upper, lower)):
            assert rows == {row for row, _ in meetings(half, kernel, stride, dilation, pad, transposed)}
        taken = [row for part in parts for row in part]
        assert len(taken) == len(set(taken))


@pytest.mark.parametrize("spread", SPREADS, ids=str)
@pytest.mark.parametrize("tap_rows", [1, 2, 3])
def test_every_product_of_a_tile_is_of_one_row(spread: tuple[int, int, int], tap_rows: int) -> None:
    _, stride, dilation = spread
    down = rows_apart(stride, dilation)
    rows = range(stride * down + (tap_rows - 1) * dilation + 1)
    found = [(q, *pair) for q in rows for pair in pairs_of_row(q, stride, dilation, tap_rows)]
    pairs = itertools.product(range(2), range(tap_rows))
    assert sorted(found) == sorted((stride * half * down + dilation * i, half, i) for half, i in pairs)


@pytest.mark.parametrize("spread", SPREADS, ids=str)
def test_pairs_hold_every_row_once(spread: tuple[int, int, int]) -> None:
    _, stride, dilation = spread
    apart = rows_apart(stride, dilation)
    for height in range(1, 20):
        pairs = range(pairs_of_rows(height, stride, dilation))
        uppers = [pair // apart * 2 * apart + pair % apart for pair in pairs]
        assert max(uppers) < height
        both = sorted(uppers + [upper + apart for upper in uppers])
        assert [row for row in both if row < height] == list(range(height))


def test_rows_of_dilated_windows_share_inputs() -> None:
    """Two rows of outputs read four rows of inputs, side by side or apart."""
    for dilation in (1, 2):
        parts = [range(*rows_of_part(part, 3, 1, dilation, 0, False)) for part in range(3)]
        assert [len(part) for part in parts] == [1, 2, 1]
