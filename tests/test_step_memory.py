"""The memory of a recorded step."""

import gc
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pnas_fast import _cpu_kernels as compiled
from pnas_fast.kernels.recording import Recording
from pnas_fast.kernels.step_memory import LEAST, StepMemory


def span(storage: torch.UntypedStorage) -> range:
    return range(storage.data_ptr(), storage.data_ptr() + storage.nbytes())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 7)), max_size=60))
def test_pieces_in_use_never_overlap(moves: list[tuple[int, int]]) -> None:
    """Each move takes a piece into one of eight places, whose piece before is let go."""
    memory = StepMemory()
    places: dict[int, torch.UntypedStorage] = {}
    for size, place in moves:
        places.pop(place, None)
        places[place] = memory.take(size)
        assert places[place].nbytes() == size
        assert places[place].data_ptr() % 64 == 0 or size == 0
        used = sorted((span(piece) for piece in places.values() if piece.nbytes()), key=lambda s: s.start)
        assert all(one.stop <= other.start for one, other in pairwise(used))
    assert len(memory.storages) <= 1


def test_what_was_let_go_becomes_one_piece_again() -> None:
    memory = StepMemory()
    quarter = LEAST // 4 - 128
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        pieces = {index: memory.take(quarter) for index in range(4)}
        for index in order:
            del pieces[index]
        whole = memory.take(LEAST - 128)
        del whole
    assert [storage.nbytes() for storage in memory.storages] == [LEAST]


def test_more_than_is_reserved_at_a_time() -> None:
    memory = StepMemory()
    large = memory.take(LEAST + 1)
    small = memory.take(1)
    assert large.nbytes() == LEAST + 1
    assert not set(span(small)) & set(span(large)[:1])
    assert len(memory.storages) == 2 or sum(s.nbytes() for s in memory.storages) > LEAST + 1


def test_memory_stays_for_as_long_as_a_tensor_of_it() -> None:
    memory = StepMemory()
    tensor = torch.empty(0).set_(memory.take(4000), 0, (1000,), (1,)).fill_(2.0)
    del memory
    gc.collect()
    assert tensor.sum() == 2000.0


def test_what_a_step_let_go_of_is_what_it_is_given_next() -> None:
    source = torch.rand(1, 8, 2, 1).contiguous(memory_format=torch.channels_last)
    total, expected = torch.zeros_like(source), torch.zeros_like(source)
    places: set[int] = set()

    def double(z: Tensor, out: Tensor) -> None:
        side = compiled.Side(z.data_ptr(), 8, 0, 8, 2, 1, 0, 1, 0)
        compiled.add_forward((1, 8, 2, 1), side, side, out.data_ptr(), 8, 1)

    def step() -> None:
        for _ in range(4):
            twice, other = torch.empty_like(source), torch.empty_like(source)
            double(source, twice)
            double(twice, other)
            double(other, total)
            places.update((twice.data_ptr(), other.data_ptr()))
            source.add_(1.0)
            del twice, other

    before = source.clone()
    recording = Recording()
    recording.record(step)
    assert len(places) == 2
    recording.replay()
    for _ in range(8):
        expected.copy_(before * 8)
        before.add_(1.0)
    assert recording.refusal is None
    assert torch.equal(total, expected)
    assert torch.equal(source, before)
