"""Work that a device does while Python goes on: streams to give it to, and how much of it may wait there.

Several children in one process have a stream each, so that a card does their work side by side. On a CPU the
same code runs with streams that stand in for those: there work is done when it is given.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")

AHEAD = 100
"""Steps of a child that may wait on its stream: what keeps a card busy while another child is warmed up."""

_MARKS = 4
"""Parts of them, of which the oldest must be done before there are more."""

PAUSE = 0.0005
"""Seconds for which a process sleeps that has nothing to do until its device is further."""

Steps = Generator[bool, None, T]
"""Work that stops after each of its steps, and with True wherever it waits for its device."""


class Mark(Protocol):
    """A place in a stream's work."""

    def query(self) -> bool:
        """Whether all before it is done."""


class Stream(Protocol):
    """Does what it is given one thing after the other, beside other streams."""

    def entered(self) -> AbstractContextManager[Any]:
        """Work is given to it while this is entered."""

    def mark(self) -> Mark:
        """After all that it has been given so far."""

    def finish(self) -> None:
        """Wait until it has done all that."""


class HostStream:
    """A stand-in: a CPU has done everything by the time that it is asked."""

    def entered(self) -> AbstractContextManager[Any]:
        """See `Stream`."""
        return nullcontext()

    def mark(self) -> Mark:
        """See `Stream`."""
        return _Done()

    def finish(self) -> None:
        """See `Stream`."""


class _Done:
    def query(self) -> bool:
        return True


class CudaStream:
    """A stream of the current card."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def entered(self) -> AbstractContextManager[Any]:
        """See `Stream`."""
        return torch.cuda.stream(self._stream)

    def mark(self) -> Mark:
        """See `Stream`."""
        event: Mark = self._stream.record_event()
        return event

    def finish(self) -> None:
        """See `Stream`; after some errors there is nothing to wait for."""
        with suppress(RuntimeError):
            self._stream.synchronize()


def current_stream(device: torch.device) -> Stream:
    """The stream that work on a device is given to now."""
    return CudaStream(torch.cuda.current_stream(device)) if device.type == "cuda" else HostStream()


def new_stream(device: torch.device) -> Stream:
    """A stream of its own, after all that the device has been given on the present one."""
    if device.type != "cuda":
        return HostStream()
    made = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    made.wait_stream(torch.cuda.current_stream(device))
    return CudaStream(made)


class Ahead:
    """How many steps wait on a stream.

    Args:
        stream: that they are given to.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._steps = 0
        self._marks: deque[Mark] = deque()

    def count(self) -> None:
        """A step has been given."""
        self._steps += 1
        if self._steps % (AHEAD // _MARKS) == 0:
            self._marks.append(self._stream.mark())

    def until_few(self) -> Iterator[bool]:
        """Wait while there are about `AHEAD`."""
        while True:
            while self._marks and self._marks[0].query():
                self._marks.popleft()
            if len(self._marks) < _MARKS:
                return
            yield True

    def until_done(self) -> Iterator[bool]:
        """Wait for all, and for whatever else the stream was given: reading a value then takes no time."""
        mark = self._stream.mark()
        while not mark.query():
            yield True
        self._marks.clear()


def to_end(steps: Steps[T]) -> T:
    """Do all of some work by itself; what it gives."""
    while True:
        try:
            if next(steps):
                time.sleep(PAUSE)
        except StopIteration as end:
            found: T = end.value
            return found
