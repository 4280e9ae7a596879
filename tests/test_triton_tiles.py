"""How work is spread over a card."""

import torch
from hypothesis import given
from hypothesis import strategies as some

from pnas_fast.kernels.triton.launch import Tile, recording
from pnas_fast.kernels.triton.tiles import spread


@given(
    pieces=some.integers(1, 100_000),
    groups=some.integers(1, 300),
    held=some.integers(1, 4),
    multiprocessors=some.integers(1, 200),
)
def test_no_program_is_without_work(pieces: int, groups: int, held: int, multiprocessors: int) -> None:
    """Kernels assume a first tile; and what a card holds at a time is enough unless groups are more."""
    with recording(multiprocessors):
        programs = spread(torch.device("cpu"), Tile(4, 128, held), pieces, groups)
    assert 1 <= programs <= pieces
    assert programs * groups <= max(groups, held * multiprocessors)
    longest = -(-pieces // programs)
    assert (programs - 1) * longest < pieces
