"""Replaying a step without Python: on a card as a CUDA graph, on the compiled CPU kernels as a recording.

A step here is a function without arguments or result: it reads and writes tensors that stay where they
are, and waits for nothing. Then replaying what it launched once is doing it again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import torch

from pnas_fast.kernels import get_backend
from pnas_fast.kernels.triton.tickets import TicketOwner

Step = Callable[[], None]

WARM_UP = 3
"""Steps that are done before one is captured: kernels are loaded and libraries choose algorithms in them."""


class Graph(Protocol):
    """What `GraphedStep` needs of a CUDA graph."""

    def warm_up(self, step: Step) -> None:
        """Run a step as it is, where it cannot disturb a capture that follows."""

    def capture(self, step: Step) -> None:
        """Capture what a step launches, without running it."""

    def replay(self) -> None:
        """Run what was captured."""


class CudaGraph:
    """A CUDA graph on the current device, and the current stream where that is not the default one.

    Nothing waits for the whole device: other streams' work goes on while it is warmed up and captured. Memory
    is shared with other graphs of the stream, so those are replayed on it as well.

    Args:
        generator: of random numbers that the step draws, beside the device's own.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._generator = generator
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        self._place = _place_of(stream.device, stream.cuda_stream)

    def warm_up(self, step: Step) -> None:
        """See `Graph.warm_up`: on a stream where a capture is possible, as PyTorch asks for."""
        with self._place.entered():
            step()

    def capture(self, step: Step) -> None:
        """See `Graph.capture`."""
        with self._place.entered():
            if self._generator is not None:
                self._graph.register_generator_state(self._generator)
            self._place.capture(self._graph, step)

    def replay(self) -> None:
        """See `Graph.replay`."""
        self._graph.replay()


class _Place:
    """Where graphs are captured: a stream, and memory that all of them share.

    What a graph that is gone leaves is the next one's. With a pool of its own each would leave it to be given
    back to the card when memory is short, which waits for the whole card, and cannot be during a capture.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()
        # A pool lasts as long as a graph has it. One of nothing at all would be warned of.
        self._keeper = torch.cuda.CUDAGraph()
        with self.entered():
            something = torch.zeros(1, device=stream.device)
            self.capture(self._keeper, something.zero_)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work on its stream, between what comes before and after on the current one."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def capture(self, graph: torch.cuda.CUDAGraph, step: Callable[[], Any]) -> None:
        """Capture what a step launches, on the stream, which is entered.

        Threads of this process may go on using the card: calls that others make are no error.
        """
        global _broken
        with _nothing_collected():
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
            except BaseException:
                # What went wrong is what the step says, whatever a half-done capture adds to it.
                try:
                    graph.capture_end()
                except RuntimeError:
                    _broken = True
                raise
            graph.capture_end()


@cache
def _place_of(device: torch.device, handle: int) -> _Place:
    """That of the current stream; the default one cannot be captured and has another beside it."""
    stream = torch.cuda.current_stream(device)
    assert stream.cuda_stream == handle
    if stream == torch.cuda.default_stream(device):
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _Place(stream)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Collect no garbage: there may be a graph among it, and calls that end one are not for a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_broken = False


def capturing_works() -> bool:
    """Whether this process can capture graphs: not after one whose capture could not be ended."""
    return not _broken


class GraphedStep:
    """A step that is captured after some ordinary calls and replayed from then on; every call is one step.

    Its kernels have counters of their own (`TicketOwner`), so several may be in flight on a card, each on a
    stream of its own.

    Args:
        step: see the top of the file.
        graph: that holds it from call ``warm_up`` (counted from 0) on.
        warm_up: ordinary calls.
    """

    def __init__(self, step: Step, graph: Graph, warm_up: int = WARM_UP) -> None:
        self._step = step
        self._graph = graph
        self._before_capture = warm_up
        self._captured = False
        self._owner = TicketOwner()

    def __call__(self) -> None:
        """Do the step once."""
        if not self._captured and self._before_capture > 0:
            self._before_capture -= 1
            with self._owner:
                self._graph.warm_up(self._step)
            return
        if not self._captured:
            with self._owner:
                self._graph.capture(self._step)
            self._captured = True
        self._graph.replay()


class RecordedStep:
    """A step on the compiled CPU kernels: recorded in its second call, replayed in later ones.

    The first call makes what stays, such as an optimiser's memory. A step that cannot be recorded, because it
    reads a value, say, is done as it is every time.

    Attributes:
        recorded: whether calls are replays by now.
    """

    def __init__(self, step: Step) -> None:
        self.recorded = False
        self._step = step
        self._next: Step = self._first

    def __call__(self) -> None:
        """Do the step once."""
        self._next()

    def _first(self) -> None:
        self._step()
        self._next = self._record

    def _record(self) -> None:
        # Here, since it needs the compiled module, which other steps go without.
        from pnas_fast.kernels.recording import Recording

        recording = Recording()
        recording.record(self._step)
        self.recorded = recording.refusal is None
        self._next = recording.replay if self.recorded else self._step


def graphed(
    step: Step, device: torch.device, warm_up: int = WARM_UP, generator: torch.Generator | None = None
) -> Step:
    """The step as a CUDA graph on a card, as it is on a CPU.

    Args:
        step: see the top of the file.
        device: that it runs on.
        warm_up: see `GraphedStep`.
        generator: see `CudaGraph`.
    """
    return GraphedStep(step, CudaGraph(generator), warm_up) if device.type == "cuda" else step


def replayed(
    step: Step, device: torch.device, backend: str, generator: torch.Generator | None = None
) -> Step:
    """A training step without Python in the loop, where there is a way: a CUDA graph, or a recording.

    A recording keeps all memory of a step, so other steps than those of a training are better left alone.

    Args:
        step: see the top of the file.
        device: that it runs on.
        backend: of its network.
        generator: see `CudaGraph`.
    """
    if get_backend(backend).records:
        return RecordedStep(step)
    return graphed(step, device, generator=generator)
