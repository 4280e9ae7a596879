"""Independent work on streams of its own, so that a CUDA graph runs it side by side.

Small maps do not fill a card, and what is captured from one stream runs one after the other. Outside
of a capture launches are what takes time, and on a CPU there are no streams: there nothing happens here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor


class Streams(Protocol):
    """What `Branches` needs of a device."""

    def current(self) -> Any:
        """The stream that work goes to now."""

    def side(self, index: int) -> Any:
        """One of several others, always the same for an index."""

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Work goes to a stream while this is entered."""


class _CudaStreams:
    def current(self) -> Any:
        return torch.cuda.current_stream()

    def side(self, index: int) -> Any:
        return _cuda_stream(torch.cuda.current_device(), index)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        return torch.cuda.stream(stream)


@cache
def _cuda_stream(device: int, index: int) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def streams_to_capture() -> Streams | None:
    """The current device's streams while a CUDA graph is captured, else None."""
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    return _CudaStreams() if capturing else None


class Branches:
    """Branches of work that begin now and go on side by side until `join`.

    Autograd runs the backward of an operation on the stream of its forward, so that branches there too.

    Args:
        streams: None runs everything where it would run anyway.
    """

    def __init__(self, streams: Streams | None) -> None:
        self._streams = streams
        self._main: Any = None if streams is None else streams.current()
        self._begun: dict[int, Any] = {}

    @contextmanager
    def branch(self, index: int, reads: Sequence[Tensor], after: Iterable[int] = ()) -> Iterator[None]:
        """Work on a branch while this is entered.

        Args:
            index: of the branch.
            reads: tensors from elsewhere: the allocator is told that this branch uses their memory too.
            after: branches whose work so far must be done first.
        """
        if self._streams is None:
            yield
            return
        stream = self._begun.setdefault(index, self._streams.side(index))
        stream.wait_stream(self._main)
        for other in after:
            stream.wait_stream(self._begun[other])
        for tensor in reads:
            tensor.record_stream(stream)
        with self._streams.on(stream):
            yield

    def join(self, results: Sequence[Tensor]) -> None:
        """Go on where the branches began, when all are done, with what they have made."""
        for stream in self._begun.values():
            self._main.wait_stream(stream)
        if self._begun:
            for tensor in results:
                tensor.record_stream(self._main)
