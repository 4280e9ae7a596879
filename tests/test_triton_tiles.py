"""How work is spread over a card."""

import torch
from hypothesis import given
from hypothesis import strategies as some

from pnas_fast.kernels.triton.launch import Tile, recording
from pnas_fast.kernels.triton.planning import part_of, planned_for
from pnas_fast.kernels.triton.tiles import spread


@given(
    pieces=some.integers(1, 100_000),
    groups=some.integers(1, 300),
    held=some.integers(1, 4),
    multiprocessors=some.integers(1, 200),
    share=some.integers(1, 64),
)
def test_no_program_is_without_work(
    pieces: int, groups: int, held: int, multiprocessors: int, share: int
) -> None:
    """Kernels assume a first tile; and what a card holds at a time is enough unless groups are more."""
    with recording(multiprocessors), planned_for(share):
        programs = spread(torch.device("cpu"), Tile(4, 128, held), pieces, groups)
    assert 1 <= programs <= pieces
    assert programs * groups <= max(groups, held * max(1, multiprocessors // share))
    longest = -(-pieces // programs)
    assert (programs - 1) * longest < pieces


def test_a_part_of_a_card_is_a_number_of_its_multiprocessors() -> None:
    assert part_of(132) == 132
    with planned_for(4):
        assert part_of(132) == 33
        with planned_for(1):
            assert part_of(132) == 132
        assert part_of(3) == 1
    assert part_of(132) == 132
    with recording(132), planned_for(4):
        assert (
            spread(torch.device("cpu"), Tile(8, 128, 2), 1000, 1) == 63
        )  # of 66 that it holds: 16 pieces each
