"""Branches of a cell on streams of their own: what they wait for, with streams that only take notes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pnas_fast.kernels import get_backend
from pnas_fast.kernels.branches import Branches, streams_to_capture
from pnas_fast.network import ChildNetwork, cell
from pnas_fast.space import Cell


class Stream:
    """Knows which works its own work comes after."""

    def __init__(self) -> None:
        self.done: set[str] = set()

    def wait_stream(self, other: Stream) -> None:
        self.done |= other.done


class Notes:
    """`pnas_fast.kernels.branches.Streams` without a device."""

    def __init__(self) -> None:
        self.main = Stream()
        self.sides: dict[int, Stream] = {}
        self._current = self.main

    def current(self) -> Stream:
        return self._current

    def side(self, index: int) -> Stream:
        return self.sides.setdefault(index, Stream())

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before

    def work(self, name: str, *needs: str) -> None:
        assert set(needs) <= self._current.done, f"{name} may run before {needs}"
        self._current.done.add(name)


class Used(list[Any]):
    """A tensor's stand-in: the streams that use its memory."""

    record_stream = list.append


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=9))
def test_a_branch_waits_for_what_it_reads_and_nothing_else(blocks: list[tuple[int, int]]) -> None:
    notes = Notes()
    notes.work("inputs")
    branches = Branches(notes)
    reads = [[place - 2 for place in pair if 2 <= place < index + 2] for index, pair in enumerate(blocks)]
    before: list[set[int]] = []
    for index, earlier in enumerate(reads):
        used = Used()
        with branches.branch(index, [used], after=earlier):  # type: ignore[list-item]
            notes.work(f"block {index}", "inputs", *(f"block {place}" for place in earlier))
        before.append(set(earlier).union(*(before[place] for place in earlier)))
        assert notes.sides[index].done == {"inputs", f"block {index}", *(f"block {p}" for p in before[index])}
        assert used == [notes.sides[index]]
    result = Used()
    branches.join([result])  # type: ignore[list-item]
    notes.work("concatenation", *(f"block {index}" for index in range(len(blocks))))
    assert result == [notes.main]
    # Streams are used again: the next cell's branches must not begin before this one is done.
    again = Branches(notes)
    with again.branch(0, []):
        notes.work("next", "concatenation")


def test_cells_of_an_eager_network_branch_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    notes, used = Notes(), []
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: used.append(stream))
    torch.manual_seed(0)
    network = ChildNetwork(
        Cell.parse("0:sep3x3+1:identity,2:sep3x3+1:max_pool3x3"), 1, 4, 10, (3, 8, 8), "eager"
    )
    images = torch.randn(4, 3, 8, 8)
    plain = network(images)
    monkeypatch.setattr(cell, "streams_to_capture", lambda: notes)
    assert torch.equal(network(images), plain)
    assert len(notes.sides) == 2
    # Of each of three cells: two branches read two states each, two results come back.
    assert len(used) == 3 * (2 + 2 + 2)
    assert used.count(notes.main) == 3 * 2


def test_fused_backends_do_not_branch() -> None:
    """Their readers of one activation add to its gradient in place, and share counters."""
    assert get_backend("eager").branches
    assert not get_backend("cpu").branches
    assert not get_backend("triton").branches


def test_outside_of_a_capture_nothing_branches() -> None:
    assert streams_to_capture() is None
    branches = Branches(None)
    with branches.branch(0, [torch.zeros(1)]):
        pass
    branches.join([torch.zeros(1)])
