"""Tasks side by side in the actors of a Ray cluster, whose nodes may come and go."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import ray

from pnas_fast.data.streamed import Streamed
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.train import plain_settings
from pnas_fast.executors import faults
from pnas_fast.executors.local import ATTEMPTS, GRACE_SECONDS
from pnas_fast.executors.messages import Setup, decode_measurement, encode_setup
from pnas_fast.executors.queued import Queued
from pnas_fast.executors.ray_cluster import Demand, places
from pnas_fast.executors.ray_seat import LostError, RayDevice, RaySeat
from pnas_fast.executors.ray_slot import Packed, digests, facts
from pnas_fast.executors.seats import Alone
from pnas_fast.executors.shared import pack
from pnas_fast.files import replacing
from pnas_fast.protocols import (
    DataSource,
    EvaluatorError,
    MachineError,
    Measurement,
    Progressed,
    Spec,
    Started,
    Task,
)

LOSSES = 5
"""After so many ends of its worker in a row a task is tried once more with its device to itself."""

START_SECONDS = 1800.0
"""A worker that has been opening data for so much longer hangs."""

IDLE_SECONDS = 60.0
"""A slot that nothing waits for is given back after so long: a cluster may then become smaller."""

_LOOK_SECONDS = 0.2
_POLL_SECONDS = 2.0
_LEAVE_SECONDS = 3.0
_LOOKS_A_SECOND = 100
_STARTS = 10


class RayExecutor(Queued):
    """Runs tasks in an actor for each of a cluster's slots; see `pnas_fast.protocols.Executor`.

    This process is connected to the cluster (`pnas_fast.executors.ray_cluster.connected`). A slot is a share
    of a node's CPUs or of a GPU of it; what a measurement leaves comes back as bytes and is written here,
    where a local worker would have put it, before the measurement is told. A task whose actor or node is
    lost is submitted again, before others.

    Args:
        demand: what a slot takes of a node.
        device: ``cpu`` or ``cuda``.
        folder: the run's.
        settings: by which hosts may open the data (`OF_DATA`, ``train_images``), and ``backend``,
            ``threads`` and ``time_limit`` of the children.
        most: see `pnas_fast.executors.ray_cluster.Wish`.
        say: is given lines for people.
        losses: see `LOSSES`.
        grace: seconds over the time limit after which a worker hangs.

    Use it as a context manager: leaving it ends the actors.
    """

    def __init__(
        self,
        demand: Demand,
        device: str,
        folder: Path,
        settings: TrainingSettings,
        most: int = 0,
        say: Callable[[str], None] = lambda text: None,
        *,
        losses: int = LOSSES,
        grace: float = GRACE_SECONDS,
    ) -> None:
        super().__init__()
        self._demand, self._folder, self._settings, self._most = demand, folder.resolve(), settings, most
        self._device = "cpu" if device == "cpu" else "cuda:0"  # of the GPUs that an actor sees
        self._say, self._losses, self._grace = say, losses, grace
        self._token = secrets.token_hex(8)
        self._setup = self._told = ""
        self._facts: dict[str, str] = {}
        self._data: Any = None
        self._packed: Any = None
        self._seats: list[RaySeat] = []
        self._devices: dict[tuple[str, str], RayDevice] = {}
        self._stillborn = self._places = 0
        self._polled = float("-inf")
        self._said = set[str]()
        self._lost: Counter[int] = Counter()
        self._tries: Counter[int] = Counter()
        self._fresh = set[int]()

    def start(self, evaluator: Spec, data: DataSource) -> None:
        """Know what workers are told; they are asked for with the first task."""
        self._data = data.open()
        backend = self._settings.backend
        self._facts = facts(backend, self._device)
        setup = Setup(evaluator, self._device, "", "", self._settings.threads)
        self._setup = json.dumps(encode_setup(setup))
        told = {"settings": plain_settings(self._settings), "digests": digests(self._data)}
        self._told = json.dumps(told)

    def close(self) -> None:
        """End all actors at once; hosts forget the data."""
        seats, self._seats = self._seats, []
        with suppress(Exception):  # whoever closes may have lost the cluster
            # Those that wait for a place have nothing to leave.
            leaving = [seat.leave() for seat in seats if seat.host]
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for seat in seats:
            seat.kill()
        self._devices.clear()
        self._packed = None

    def _advance(self) -> None:
        try:
            self._look_round()
        except ray.exceptions.RayError as error:
            raise MachineError(f"the Ray cluster cannot be used ({_words(error)}), {faults.GO_ON}") from error

    def _look_round(self) -> None:
        self._grow()
        self._place_alone()
        self._assign()
        for seat, is_look in self._answered():
            try:
                self._hear(seat, is_look)
            except (MachineError, EvaluatorError) as fault:
                self._fault = self._fault or fault
        if self._fault is None:
            self._judge()

    # Slots.

    def _grow(self) -> None:
        """Ask for the slots that are missing, unless one of them has a device to itself."""
        if any(device.taken for device in self._devices.values()):
            return
        now = time.monotonic()
        if not self._most and now - self._polled >= _POLL_SECONDS:
            self._polled, self._places = now, places(self._demand)
            if not self._places:
                self._say_once("no node of the cluster has a place for a child: waiting for one that has")
        for _ in range(len(self._seats), min(self._most or self._places, self._out)):
            seat = RaySeat.ask_for(self._demand, self._token, os.getcwd())
            seat.begin(self._setup, self._told, self._settings.backend, None)
            self._seats.append(seat)

    def _take_place(self, seat: RaySeat, message: Mapping[str, Any]) -> None:
        """A seat's first answer: where it is, and whether it can work."""
        node, gpu, seat.host = message["place"]
        self._compare(seat.host, message["facts"])
        _raise_stop(seat, message)
        if "needs" in message:
            self._say_once(f"{seat.host}: receives the data through the object store ({message['needs']})")
            if self._packed is None:
                self._packed = ray.put(self._pack(seat.host))
            seat.begin(self._setup, self._told, self._settings.backend, self._packed)
            return
        seat.device = self._devices.setdefault((node, gpu), RayDevice())
        seat.device.seats.append(seat)
        seat.idle_since = time.monotonic()

    def _pack(self, host: str) -> Packed:
        if isinstance(self._data.train_images, Streamed):
            raise MachineError(
                f"{host} does not have the images, and streamed ones are not sent: put the files into the "
                f"same folder on all hosts, {faults.GO_ON}"
            )
        return pack(self._data)

    def _compare(self, host: str, found: Mapping[str, str]) -> None:
        for name, here in self._facts.items():
            if name != "machine" and found[name] != here:
                raise MachineError(
                    f"{host} has {name} {found[name]}, this host {here}: install the same on all hosts, "
                    f"{faults.GO_ON}"
                )
        if not self._facts[
            "machine"
        ]:  # this host has no such device: the first that has is what others are like
            self._facts["machine"] = found["machine"]
        if found["machine"] != self._facts["machine"]:
            self._say_once(
                f"hosts differ ({self._facts['machine']}; {found['machine']}): last bits of a child's result "
                "may depend on where it was trained"
            )

    def _remove(self, seat: RaySeat) -> None:
        seat.kill()
        self._seats.remove(seat)
        device = seat.device
        if device is None:
            return
        device.seats.remove(seat)
        if device.reserved is seat:
            device.reserved = None
        if not device.seats:
            # A node that left: its tasks have another device to themselves.
            del self._devices[next(key for key, value in self._devices.items() if value is device)]
            for alone in reversed(device.alone):
                self._put_back(alone.task, alone.fresh)

    # Tasks.

    def _put_back(self, task: Task, fresh: bool) -> None:
        self._waiting.appendleft(task)
        if fresh:
            self._fresh.add(task.number)

    def _is_alone(self, task: Task) -> bool:
        return task.exclusive or task.number in self._fresh

    def _place_alone(self) -> None:
        while self._devices and self._waiting and self._is_alone(self._waiting[0]):
            device = min(self._devices.values(), key=lambda device: device.busy)
            task = self._waiting.popleft()
            device.alone.append(Alone(task, task.number in self._fresh))
            self._fresh.discard(task.number)

    def _assign(self) -> None:
        for seat in list(self._seats):
            device = seat.device
            if device is None or not seat.idle or seat not in self._seats:
                continue
            if device.alone and device.reserved is None and not any(other.task for other in device.seats):
                self._reserve(device, seat)
            if device.reserved is seat and device.alone:
                self._begin(seat, device.alone.popleft().task)
            elif self._waiting and not device.taken and not self._is_alone(self._waiting[0]):
                self._begin(seat, self._waiting.popleft())

    def _reserve(self, device: RayDevice, seat: RaySeat) -> None:
        device.reserved = seat
        if device.alone[0].fresh:
            seat.empty()
            for other in list(device.seats):
                if other is not seat:
                    self._remove(other)

    def _begin(self, seat: RaySeat, task: Task) -> None:
        self._waited[task.number] = self._waited.get(task.number, 0.0) + seat.waited()
        seat.assign(task)
        self._events.append(Started(task))

    # What comes back.

    def _answered(self) -> list[tuple[RaySeat, bool]]:
        asked = {seat.look: (seat, True) for seat in self._seats if seat.look is not None}
        asked |= {seat.call: (seat, False) for seat in self._seats if seat.call is not None}
        if not asked:
            time.sleep(0 if self._events else _LOOK_SECONDS)
            return []
        calls = list(asked)
        ready, _ = ray.wait(calls, num_returns=1, timeout=0 if self._events else _LOOK_SECONDS)
        if ready:
            ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        return [asked[call] for call in ready]

    def _hear(self, seat: RaySeat, is_look: bool) -> None:
        if seat not in self._seats:
            return  # it was removed
        if is_look:
            if seat.take_look() and seat.task is not None:
                self._events.append(Progressed(seat.task, seat.images))
            return
        try:
            message, files = seat.take_answer()
        except LostError as error:
            self._lose(seat, str(error))
            return
        if "place" in message:
            self._take_place(seat, message)
        else:
            _raise_stop(seat, message)
            self._take_result(seat, message, files)

    def _take_result(self, seat: RaySeat, message: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        measurement = decode_measurement(message["result"])
        task = seat.task
        assert task is not None
        self._stillborn = self._lost[task.number] = 0
        seat.free()
        if message["unusable"]:
            self._remove(seat)
        if message["memory"] or message["unusable"]:
            self._tries[task.number] += 1
            if self._tries[task.number] < ATTEMPTS:
                self._put_back(task, fresh=True)
                return
            times = f"({ATTEMPTS} times, the last time alone)"
            measurement = replace(measurement, error=f"{measurement.error} {times}")
        for name, content in files.items():
            self._write(name, content)
        self._finish(task, measurement)

    def _write(self, name: str, content: bytes) -> None:
        """Put a file where a worker of this host would have put it."""
        inside = PurePosixPath(name)
        assert not inside.is_absolute(), name
        assert ".." not in inside.parts, name
        path = self._folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def _finish(self, task: Task, measurement: Measurement) -> None:
        for counts in (self._tries, self._lost):
            counts.pop(task.number, None)
        self._tell_finished(task, measurement)

    def _lose(self, seat: RaySeat, why: str) -> None:
        """An actor is gone: its task is submitted again, for as long as that may be chance."""
        task, host = seat.task, seat.host
        self._remove(seat)
        if task is None:
            self._stillborn += 1
            if self._stillborn > _STARTS + ATTEMPTS * len(self._seats):
                raise MachineError(
                    f"workers do not start on the cluster ({why}): see Ray's logs; {faults.GO_ON}"
                )
            return
        self._lost[task.number] += 1
        lost = self._lost[task.number]
        if lost > self._losses:
            raise MachineError(
                f"a worker on {host} was lost ({why}) with child {task.number} ({task.proposal.cell}), "
                f"{lost} times, the last time alone: see Ray's logs; {faults.GO_ON}"
            )
        if not self._draining:
            self._say(f"{host}: a worker was lost ({why}); child {task.number} is trained again")
        self._put_back(task, fresh=lost == self._losses)

    def _judge(self) -> None:
        """Nobody is waited for without a limit, but for a place in the cluster."""
        pause = max(1.0, len(self._seats) / _LOOKS_A_SECOND)
        for seat in list(self._seats):
            if seat.idle:
                if not self._waiting and seat.waited() > IDLE_SECONDS:
                    seat.leave()
                    self._remove(seat)
                continue
            seat.look_again(pause)
            limit = START_SECONDS if seat.task is None else self._settings.time_limit + self._grace
            if seat.running > limit:
                self._give_up(seat)
            elif seat.silent > limit and seat.task is not None:
                self._lose(seat, f"no answer for {limit:g} s")

    def _give_up(self, seat: RaySeat) -> None:
        task, limit = seat.task, self._settings.time_limit
        if task is None:
            raise MachineError(f"workers do not start (one is not ready after {START_SECONDS:g} s)")
        self._remove(seat)
        error = f"hung: no result {self._grace:g} s past the time limit of {limit:g} s"
        seconds = {"seconds": limit + self._grace}
        self._finish(task, Measurement("failed", seconds, error, device=self._device))

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _raise_stop(seat: RaySeat, message: Mapping[str, Any]) -> None:
    """Raise what `pnas_fast.executors.worker.stopped` has made a message of."""
    if "machine" in message:
        raise MachineError(f"a worker on {seat.host}: {message['machine']}")
    if "evaluator" in message:
        raise EvaluatorError(message["evaluator"])


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
