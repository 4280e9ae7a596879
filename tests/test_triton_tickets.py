"""Counters of launches: who has which, that they are zero again, and that there are enough."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from oracle import activation
from pnas_fast.engine.graph import GraphedStep, Step
from pnas_fast.kernels import BackendError, CellOutput, Side, get_backend
from pnas_fast.kernels.triton import library
from pnas_fast.kernels.triton.average import TILE, average_kernel
from pnas_fast.kernels.triton.launch import launch, recording
from pnas_fast.kernels.triton.tickets import TICKETS, TicketOwner, tickets
from where_triton_runs import DEVICE, INTERPRETED, default_device

TRITON = get_backend("triton")
HERE = torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)
GUARD = 12345


class Taken(NamedTuple):
    """What a launch was given: the kernel's name, all of the buffer, and how many counters it asked for."""

    kernel: str
    buffer: Tensor
    asked: int


@pytest.fixture(autouse=True)
def where_they_run() -> Iterator[None]:
    with default_device():
        yield


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Taken]:
    """Launches that take counters; other counters than those asked for are no zeros meanwhile."""
    found: list[Taken] = []
    call = library.call

    def watched(kernel: Any, grid: Any, arguments: Any, *rest: Any) -> None:
        own = arguments.get("tickets")
        if own is None:
            return call(kernel, grid, arguments, *rest)
        buffer = own._base
        assert buffer.shape == (TICKETS,)
        assert not buffer.any(), kernel.__name__
        found.append(Taken(library.name_of(kernel), buffer, len(own)))
        buffer[len(own) :] = GUARD
        call(kernel, grid, arguments, *rest)
        assert not own.any(), kernel.__name__
        assert (buffer[len(own) :] == GUARD).all(), kernel.__name__
        buffer.zero_()

    monkeypatch.setattr(library, "call", watched)
    return found


def small_step() -> None:
    """A launch that takes counters."""
    convolved = TRITON.convolution(activation(1, 2, 2, 1), torch.randn(2, 2, 1, 1), nn.BatchNorm2d(2))
    TRITON.materialise(convolved)


class StandIn:
    """A graph that calls the step where a CUDA graph would replay it."""

    def warm_up(self, step: Step) -> None:
        step()

    def capture(self, step: Step) -> None:
        step()

    def replay(self) -> None:
        pass


def pointers(taken: list[Taken]) -> set[int]:
    """Buffers of launches so far, which are then forgotten."""
    found = {one.buffer.data_ptr() for one in taken}
    taken.clear()
    return found


def test_owners_have_buffers_of_their_own() -> None:
    usual, first, second = tickets(HERE), TicketOwner(), TicketOwner()
    with first:
        own = tickets(HERE)
        with second:
            other = tickets(HERE)
        assert tickets(HERE) is own
    assert tickets(HERE) is usual
    with first:
        assert tickets(HERE) is own
    assert len({buffer.data_ptr() for buffer in (usual, own, other)}) == 3
    assert all(not buffer.any() and buffer.shape == (TICKETS,) for buffer in (usual, own, other))


def test_an_owner_that_fails_is_left() -> None:
    usual = tickets(HERE)
    with pytest.raises(ValueError, match="why"), TicketOwner():
        raise ValueError("why")
    assert tickets(HERE) is usual


def test_counters_made_in_an_evaluation_serve_a_training() -> None:
    owner = TicketOwner()
    with torch.inference_mode():
        made = owner.tickets(HERE)
    assert not made.is_inference()


def from_another_thread(function: Callable[[], Any]) -> Any:
    """A function's result, or what it raised."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except RuntimeError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_threads_of_a_backward_take_the_owners() -> None:
    with TicketOwner() as owner:
        assert from_another_thread(lambda: tickets(HERE)) is owner.tickets(HERE)


def test_two_threads_with_owners_at_once_are_refused() -> None:
    def enter() -> None:
        with TicketOwner():
            pass

    with TicketOwner():
        error = from_another_thread(enter)
    assert str(error) == "tickets: two threads launch for owners at once, allowed is one"
    assert from_another_thread(enter) is None


def test_a_capture_makes_no_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be zeroed in every replay, and lie in memory that the graph takes back."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with TicketOwner(), pytest.raises(RuntimeError, match=r"^tickets: made while a graph is captured, .*$"):
        tickets(torch.device("cuda", 0))


def test_interleaved_steps_share_no_buffer(taken: list[Taken]) -> None:
    """In whatever order they are warmed up, captured and replayed: one child's step beside another's."""
    steps = [GraphedStep(small_step, StandIn(), warm_up=1) for _ in range(3)]
    found: list[set[int]] = [set(), set(), set()]
    for index in (0, 1, 1, 2, 0, 2, 1):
        steps[index]()
        found[index] |= pointers(taken)
    small_step()
    found.append(pointers(taken))
    assert [len(own) for own in found] == [1, 1, 1, 1]
    assert len(set.union(*found)) == 4


def test_a_captured_step_keeps_its_buffer(taken: list[Taken]) -> None:
    step = GraphedStep(small_step, StandIn(), warm_up=1)
    step()
    step()
    alive = weakref.ref(taken[0].buffer)
    assert taken[-1].buffer is taken[0].buffer
    taken.clear()
    gc.collect()
    assert alive() is not None
    del step
    gc.collect()
    assert alive() is None


@pytest.mark.slow
def test_every_kernel_takes_what_it_asks_for_and_leaves_zeros(taken: list[Taken]) -> None:
    """Several chunks of channels, groups of filters and alike problems: each has its part."""
    wide, narrow, output, pairs = 33, 3, CellOutput(2), []
    sources = [activation(1, wide, 2, 3).requires_grad_() for _ in range(2)]
    for source in sources:
        shapes = [(narrow, wide, 1, 1), (wide, narrow, 1, 2), (wide, 1, 3, 3), (wide, wide, 1, 1)]
        weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
        norms = [nn.BatchNorm2d(filters, momentum=None) for filters in (narrow, wide, wide)]
        own = TRITON.convolution(source, weights[0], norms[0])
        more = TRITON.convolution(own, weights[1], norms[1])
        separable = TRITON.separable(more, weights[2], weights[3], norms[2])
        pairs.append((Side(separable), Side(more, "max")))
    blocks = [TRITON.add(*pair, output, index) for index, pair in enumerate(pairs)]
    TRITON.global_average(TRITON.concatenate(blocks, output)).sum().backward()  # type: ignore[no-untyped-call]
    assert {one.kernel for one in taken} == {
        *("dense", "separable", "add_backward", "average_backward"),
        *("dense_backward", "pointwise_backward", "separable_backward"),
    }
    assert all(source.grad is not None and source.grad.isfinite().all() for source in sources)


@pytest.mark.skipif(not INTERPRETED, reason="plans for a card that is not here")
def test_teams_of_programs_have_theirs(monkeypatch: pytest.MonkeyPatch, taken: list[Taken]) -> None:
    monkeypatch.setattr("pnas_fast.kernels.triton.tiles.multiprocessors", lambda device: 132)
    x = activation(1, 3, 17, 32).requires_grad_()
    weight = torch.randn(3, 3, 1, 1, requires_grad=True)
    TRITON.materialise(TRITON.convolution(x, weight, None)).sum().backward()  # type: ignore[no-untyped-call]
    # 17 programs are two teams: their two tickets, that of teams, and one for the affine's gradient.
    counts = {one.kernel: one.asked for one in taken}
    assert counts["pointwise_backward"] == 4


def test_more_tickets_than_there_are_are_refused() -> None:
    out = torch.empty(2, 4)
    with recording(), pytest.raises(BackendError) as caught:
        launch(average_kernel, (1,), TILE, reads=(), writes=(out,), counters=TICKETS + 1)
    assert str(caught.value) == (
        "backend triton: average: its number of tickets is 65,537, allowed is up to 65,536"
    )
    with recording() as launches:
        launch(average_kernel, (1,), TILE, reads=(), writes=(out,), counters=TICKETS)
    assert len(launches) == 1


@pytest.mark.parametrize("grouped", [False, True])
def test_a_slice_that_reaches_further_than_offsets_is_refused(grouped: bool) -> None:
    """It has fewer elements than the limit; the tensor that it is of has more."""
    whole = torch.empty(2**20, 3000, device="meta")
    out = torch.empty(2, 4)
    slices = {"z": whole[:, :8]}
    given = {"problems": {"z": (out, slices["z"])}} if grouped else slices
    with recording(), pytest.raises(BackendError) as caught:
        launch(average_kernel, (1,), TILE, reads=(), writes=(out,), **given)
    assert str(caught.value) == (
        "backend triton: average: the reach of z in memory is 3,145,725,008 elements, "
        "allowed is up to 2,147,483,647 elements"
    )
    with recording() as launches:
        launch(average_kernel, (1,), TILE, reads=(), writes=(out,), z=whole[: 2**19, :8])
    assert len(launches) == 1
