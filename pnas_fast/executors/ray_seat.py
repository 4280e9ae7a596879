"""A device slot of a cluster, as its executor sees it, and the devices that slots lie on."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from pnas_fast.executors.launch import search_path
from pnas_fast.executors.messages import encode_task
from pnas_fast.executors.ray_cluster import Demand
from pnas_fast.executors.ray_slot import Slot
from pnas_fast.executors.seats import Alone
from pnas_fast.protocols import MachineError, Task
from pnas_fast.running import LONGEST_LOOK

_LOOKS = "looks"


class LostError(Exception):
    """The actor, its process or its node is no longer there, or no longer heard of."""


@dataclass(eq=False)
class RaySeat:
    """An actor and what it was last asked for.

    Attributes:
        call: the answer to come to what it does; None while it has nothing to do.
        look: the answer to come to how far it is.
        silent: seconds, while this process was running, for which it has answered neither.
    """

    actor: Any
    call: Any = None
    look: Any = None
    host: str = ""
    device: RayDevice | None = None
    task: Task | None = None
    idle_since: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)
    silent: float = 0.0
    running: float = 0.0
    images: int = 0

    @classmethod
    def ask_for(cls, demand: Demand, token: str, place: str) -> RaySeat:
        """A seat anywhere in the cluster, as soon as there is room for it."""
        kind = ray.remote(
            num_cpus=demand.cpus,
            num_gpus=demand.gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={_LOOKS: 1},
        )(Slot)
        return cls(kind.remote(token, place, search_path()))

    @property
    def idle(self) -> bool:
        """Whether it is ready for a task."""
        return self.device is not None and self.call is None

    def begin(self, *arguments: Any) -> None:
        """See `Slot.begin`."""
        self._ask(self.actor.begin.remote(*arguments))

    def assign(self, task: Task) -> None:
        """Give it a task."""
        self.task = task
        self._ask(self.actor.measure.remote(json.dumps(encode_task(task))))

    def _ask(self, call: Any) -> None:
        self.call, self.silent, self.running, self.images = call, 0.0, 0.0, 0
        self.looked = time.monotonic()

    def waited(self) -> float:
        """For how many seconds it has had nothing to do."""
        return time.monotonic() - self.idle_since

    def free(self) -> None:
        """Its task is over: it waits for the next."""
        self.task, self.idle_since = None, time.monotonic()
        if self.device is not None and self.device.reserved is self:
            self.device.reserved = None

    def look_again(self, seconds: float) -> None:
        """Ask how far it is, every so many seconds; count for how long it has not said so."""
        passed = time.monotonic() - self.looked
        if passed < seconds:
            return
        self.looked = time.monotonic()
        # What is more passed while this process was stopped.
        self.silent += min(passed, seconds + LONGEST_LOOK)
        if self.look is None:
            self.look = self.actor.look.options(concurrency_group=_LOOKS).remote()

    def take_look(self) -> bool:
        """Take the answer to `look_again`; whether more images have been seen."""
        look, self.look = self.look, None
        try:
            images, running = ray.get(look)
        except ray.exceptions.RayError:
            return False  # as it answers to what it does
        self.silent, self.running = 0.0, running
        more = bool(images > self.images)
        self.images = images
        return more

    def take_answer(self) -> tuple[dict[str, Any], Mapping[str, bytes]]:
        """The answer to what it did: a message, and files.

        Raises:
            LostError: it is no longer there.
            MachineError: it cannot work where it is.
        """
        call, self.call = self.call, None
        try:
            answer = ray.get(call)
        except ray.exceptions.RayError as error:
            words = _last_line(error)
            own = isinstance(error, ray.exceptions.RayTaskError) or "creation task" in str(error)
            if own or "failed to import" in str(error):
                raise MachineError(f"a worker of the cluster cannot work: {words}") from error
            raise LostError(f"{type(error).__name__}") from error
        text, files = answer if isinstance(answer, tuple) else (answer, {})
        return json.loads(text), files

    def empty(self) -> None:
        """See `Slot.empty`."""
        self.actor.empty.remote()

    def leave(self) -> Any:
        """See `Slot.leave`; the answer to come."""
        return self.actor.leave.options(concurrency_group=_LOOKS).remote()

    def kill(self) -> None:
        """End the actor at once."""
        with suppress(Exception):  # it may be gone, as may the cluster
            ray.kill(self.actor, no_restart=True)


@dataclass(eq=False)
class RayDevice:
    """The CPU or a GPU of a node; see `pnas_fast.executors.seats.Device`."""

    seats: list[RaySeat] = field(default_factory=list)
    alone: deque[Alone] = field(default_factory=deque)
    reserved: RaySeat | None = None

    @property
    def taken(self) -> bool:
        """Whether a task has it to itself, or waits for that."""
        return self.reserved is not None or bool(self.alone)

    @property
    def busy(self) -> int:
        """Tasks that run there, or wait to run there alone."""
        return len(self.alone) + sum(seat.task is not None for seat in self.seats)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
