"""Devices, the places that workers have on them, and those that tasks have in a worker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pnas_fast.executors.process import Worker
from pnas_fast.protocols import Task
from pnas_fast.running import Watched


@dataclass(slots=True, eq=False)
class Lane:
    """A task's place in a worker: the task there, how long it has been at it, or since when there is none."""

    seat: Seat
    task: Task | None = None
    watched: Watched | None = None
    idle_since: float = 0.0

    def waited(self) -> float:
        """For how many seconds it has had nothing to do."""
        return time.monotonic() - self.idle_since

    def begin(self, task: Task) -> None:
        """Give its worker a task."""
        worker = self.seat.worker
        assert worker is not None
        self.task, self.watched = task, Watched(worker.pid)
        worker.assign(task)

    def free(self) -> Task:
        """Its task is over, or is no longer its own: it waits for the next."""
        task = self.task
        assert task is not None
        self.task = self.watched = None
        self.idle_since = time.monotonic()
        if self.seat.reserved:
            self.seat.device.reserved = None
        return task


@dataclass(slots=True, eq=False)
class Seat:
    """A worker's place on a device, the process there, and its lanes."""

    device: Device
    lanes: list[Lane]
    worker: Worker | None = None

    @classmethod
    def on(cls, device: Device, lanes: int) -> Seat:
        """A seat more on a device, for a worker that may be at so many tasks side by side."""
        seat = cls(device, [])
        seat.lanes += [Lane(seat) for _ in range(lanes)]
        device.seats.append(seat)
        return seat

    @property
    def tasks(self) -> int:
        """How many run there."""
        return sum(lane.task is not None for lane in self.lanes)

    @property
    def reserved(self) -> bool:
        """Whether it has its device for itself, for one task."""
        return self.device.reserved is self

    def lane_of(self, number: int) -> Lane | None:
        """That of the task with a number."""
        found = (lane for lane in self.lanes if lane.task is not None and lane.task.number == number)
        return next(found, None)

    def free(self) -> list[Task]:
        """All tasks there, which are its own no longer."""
        return [lane.free() for lane in self.lanes if lane.task is not None]

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
        return len(self.alone) + sum(seat.tasks for seat in self.seats)

    def open_seats(self) -> Sequence[Seat]:
        """Seats that may have a process and a task now."""
        if self.reserved is None and self.alone and not any(seat.tasks for seat in self.seats):
            if self.alone[0].fresh:
                for seat in self.seats:
                    seat.dismiss()
            self.reserved = self.seats[0]
        if self.reserved is not None:
            return [self.reserved]
        return [] if self.alone else self.seats
