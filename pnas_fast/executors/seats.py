"""Devices and the places that workers have on them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pnas_fast.executors.process import Worker
from pnas_fast.protocols import Task


@dataclass(slots=True, eq=False)
class Seat:
    """A worker's place on a device, the process there, and since when it waits for a task."""

    device: Device
    worker: Worker | None = None
    idle_since: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether a task runs there."""
        return self.worker is not None and self.worker.task is not None

    @property
    def reserved(self) -> bool:
        """Whether it has its device for itself."""
        return self.device.reserved is self

    def waited(self) -> float:
        """For how many seconds it has had nothing to do."""
        return time.monotonic() - self.idle_since

    def free(self) -> None:
        """Its task is over: it waits for the next."""
        self.idle_since = time.monotonic()
        if self.reserved:
            self.device.reserved = None

    def dismiss(self) -> None:
        """End its process at once."""
        if self.worker is not None:
            self.worker.kill()
            self.worker = None


@dataclass(frozen=True, slots=True)
class Alone:
    """A task that must have a device to itself; a ``fresh`` one with the memory of all idle processes too."""

    task: Task
    fresh: bool


@dataclass(slots=True, eq=False)
class Device:
    """A CPU or a GPU, and the tasks that must have it for themselves.

    While there are some, its workers take no others; when all have finished theirs, the one in the
    ``reserved`` seat takes one such task.
    """

    name: str
    seats: list[Seat] = field(default_factory=list)
    alone: deque[Alone] = field(default_factory=deque)
    reserved: Seat | None = None

    @property
    def busy(self) -> int:
        """Tasks that run there, or wait to run there alone."""
        return len(self.alone) + sum(seat.busy for seat in self.seats)

    def open_seats(self) -> Sequence[Seat]:
        """Seats that may have a process and a task now."""
        if self.reserved is None and self.alone and not any(seat.busy for seat in self.seats):
            if self.alone[0].fresh:
                for seat in self.seats:
                    seat.dismiss()
            self.reserved = self.seats[0]
        if self.reserved is not None:
            return [self.reserved]
        return [] if self.alone else self.seats
