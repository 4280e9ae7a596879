"""The memory of a recorded step: given and taken back while it is recorded, and from then on where it was.

A step that is done again makes the same tensors in the same order, so memory of one that is gone by then can
be that of one that comes later. The step needs as much as it ever has at a time, and more of what it writes
is in the caches already.
"""

from __future__ import annotations

import mmap
import weakref
from bisect import bisect_left, insort
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import torch

LINE = 64
"""Bytes of a cache line. A piece has one more than it needs: else tensors of a stage, whose sizes are
multiples of a power of two, would have their first values in the same few places of the first-level cache."""

HUGE = 2 << 20
"""Bytes of a large page. With small ones looking addresses up takes a few percent of a step."""

LEAST = 64 << 20
"""Bytes that are reserved at a time. What is never written takes no memory."""


class StepMemory:
    """Memory of one step, and of nothing else for as long as anything of it is used.

    Attributes:
        storages: all of it.
    """

    def __init__(self) -> None:
        self.storages: list[torch.UntypedStorage] = []
        self._bytes: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        self._free: list[tuple[int, int, int]] = []  # reservation, start, end
        self._given: set[_Piece] = set()
        self._returned: deque[_Piece] = deque()

    def take(self, size: int) -> torch.UntypedStorage:
        """So many bytes, until the storage is gone."""
        self._take_back()
        wanted = (size // LINE + 2) * LINE
        fitting = [
            (end - start, place) for place, (_, start, end) in enumerate(self._free) if end - start >= wanted
        ]
        if not fitting:
            self._reserve(wanted)
            return self.take(size)
        reservation, start, end = self._free.pop(min(fitting)[1])
        if start + wanted < end:
            insort(self._free, (reservation, start + wanted, end))
        view = self._bytes[reservation][start : start + size]
        self._given.add(_Piece(view, self._returned, reservation, start, start + wanted))
        return torch.from_numpy(view).untyped_storage()

    def _take_back(self) -> None:
        while self._returned:
            piece = self._returned.popleft()
            self._given.remove(piece)
            reservation, start, end = piece.place
            at = bisect_left(self._free, piece.place)
            if at < len(self._free) and self._free[at][:2] == (reservation, end):
                end = self._free.pop(at)[2]
            if at > 0 and self._free[at - 1][::2] == (reservation, start):
                at -= 1
                start = self._free.pop(at)[1]
            self._free.insert(at, (reservation, start, end))

    def _reserve(self, size: int) -> None:
        size = max(LEAST, -(-size // HUGE) * HUGE)
        memory = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # of a system that has none
            memory.madvise(mmap.MADV_HUGEPAGE)
        everything = np.frombuffer(memory, np.uint8)
        first = -everything.ctypes.data % HUGE
        self._bytes.append(everything[first : first + size])
        self.storages.append(torch.from_numpy(self._bytes[-1]).untyped_storage())
        insort(self._free, (len(self._bytes) - 1, 0, size))


class _Piece(weakref.ref["np.ndarray[Any, np.dtype[np.uint8]]"]):
    """A piece that a storage has; it tells when that is gone, on whatever thread, and no more than that."""

    __slots__ = ("place",)

    place: tuple[int, ...]

    def __new__(cls, view: Any, returned: deque[_Piece], *place: int) -> _Piece:
        piece = super().__new__(cls, view, returned.append)
        piece.place = place
        return piece

    def __init__(self, *_: Any) -> None:
        """Nothing more: a reference would take but its own arguments."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other
