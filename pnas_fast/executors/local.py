"""Tasks side by side in long-lived worker processes of this machine, and what happens when one dies.

A worker may be at several tasks, a lane for each. What one of them does is its own; what ends the process, or
the process's use of its device, may be any one's doing: each is then tried again alone.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from pnas_fast.executors import faults, fork_server, launch
from pnas_fast.executors.fork_server import ForkServer, ForkServerError
from pnas_fast.executors.messages import Setup, decode_measurement
from pnas_fast.executors.process import WORKER, Process, Program, Start, Worker
from pnas_fast.executors.queued import Queued
from pnas_fast.executors.seats import Alone, Device, Lane, Seat
from pnas_fast.executors.shared import shared_data
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

ATTEMPTS = 2
"""How often a task is tried that runs out of memory or whose worker dies, the last time alone."""

GRACE_SECONDS = 30.0
"""A worker that has been at its task for so much longer than the time limit hangs and is killed."""

LOG = "workers.log"

_LOOK_SECONDS = 0.2


class LocalExecutor(Queued):
    """Runs tasks in a process for each of some devices' seats; see `pnas_fast.protocols.Executor`.

    Tasks are taken in the order they were submitted in. On Linux, workers on the CPU are forked from a
    process that has imported what they need: the one that this program began (`fork_server`), or one
    of this executor's own. Limits are of running time (`pnas_fast.running`).

    Args:
        devices: a device for each process, say ``["cuda:0", "cuda:1", "cuda:0", "cuda:1"]``.
        folder: the run's; workers leave their complaints in its ``workers.log``.
        time_limit: seconds that a child has by its evaluator; a worker that is `grace` seconds over it hangs.
        threads: over which each operation on a CPU is split.
        lanes: tasks that a process may be at, where its evaluator can stop (`pnas_fast.protocols.Stepped`).
        attempts: how often a task is tried for which memory is short or whose worker dies, at the most.
        grace: see ``time_limit``.
        start_limit: seconds within which a worker must be ready.
        start: starts a worker's process.

    Use it as a context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        devices: Sequence[str],
        folder: Path,
        time_limit: float,
        threads: int = 1,
        *,
        lanes: int = 1,
        attempts: int = ATTEMPTS,
        grace: float = GRACE_SECONDS,
        start_limit: float = fork_server.START_SECONDS,
        start: Start | None = None,
    ) -> None:
        super().__init__()
        self._folder = folder.resolve()
        self._log = self._folder / LOG
        self._log_begin = 0
        self._threads, self._lanes_of_seat, self._attempts = threads, lanes, attempts
        self._time_limit, self._grace, self._start_limit = time_limit, grace, start_limit
        self._start = start or self._start_worker
        self._devices: dict[str, Device] = {name: Device(name) for name in devices}
        self._seats: list[Seat] = [Seat.on(self._devices[name], lanes) for name in devices]
        self._setup: Setup | None = None
        self._server: ForkServer | None = None
        self._opened = ExitStack()
        self._inbox: queue.Queue[tuple[Worker, Any]] = queue.Queue()
        self._stillborn = 0
        self._tries: dict[int, int] = {}

    def start(self, evaluator: Spec, data: DataSource) -> None:
        """Lay the data out for workers and begin to import what they need.

        Raises:
            MachineError: the data cannot be laid out, or no process can be started.
        """
        opened = data.open()
        try:
            if self._start == self._start_worker and self._forks("cpu") and "cpu" in self._devices:
                self._serving()
            place = self._opened.enter_context(shared_data(opened, self._folder))
            with suppress(FileNotFoundError):
                self._log_begin = self._log.stat().st_size
        except OSError as error:
            raise MachineError(faults.of_os(error)) from error
        self._setup = Setup(evaluator, "", str(place), str(self._folder), self._threads, self._lanes_of_seat)

    def close(self) -> None:
        """End all workers at once."""
        server, self._server = self._server, None
        if server is not None:
            server.close()  # and with it all that it has forked
        for seat in self._seats:
            seat.dismiss()
        self._opened.close()

    def _advance(self) -> None:
        self._place_exclusive()
        self._start_processes()
        self._assign()
        # What has been said is heard before anybody is judged: it may have been said long ago.
        for worker, message in self._replies():
            try:
                self._hear(worker, message)
            except (MachineError, EvaluatorError) as fault:
                self._fault = self._fault or fault
        if self._fault is None:
            self._judge()

    def _replies(self) -> Iterator[tuple[Worker, Any]]:
        with suppress(queue.Empty):
            yield self._inbox.get(timeout=0 if self._events else _LOOK_SECONDS)
            while True:
                yield self._inbox.get_nowait()

    def _place_exclusive(self) -> None:
        while self._waiting and self._waiting[0].exclusive:
            device = min(self._devices.values(), key=lambda device: device.busy)
            device.alone.append(Alone(self._waiting.popleft(), fresh=False))

    def _open_seats(self) -> list[Seat]:
        opened = {id(seat) for device in self._devices.values() for seat in device.open_seats()}
        return [seat for seat in self._seats if id(seat) in opened]

    def _start_processes(self) -> None:
        seats = self._open_seats()
        # One for each task, so that few are spread over all devices.
        missing = len(self._waiting) + sum(seat.tasks for seat in seats)
        missing -= sum(seat.worker is not None for seat in seats)
        for seat in seats:
            if seat.worker is None and (seat.reserved or missing > 0):
                self._start_process(seat)
                missing -= not seat.reserved

    def _start_process(self, seat: Seat) -> None:
        assert self._setup is not None, "start() comes first"
        setup = replace(self._setup, device=seat.device.name)
        try:
            seat.worker = Worker(self._start, setup, self._log, self._inbox)
        except ForkServerError as error:
            complaints = self._server_complaints()
            self._count_stillborn(f"{error}{faults.bracketed(complaints)}", len(self._seats))

    def _assign(self) -> None:
        # The first of every seat, then the second: devices have as much to do as one another.
        for lane in self._in_turns(self._open_seats()):
            seat = lane.seat
            if seat.worker is None or not seat.worker.ready or lane.task is not None:
                continue
            if seat.reserved and seat.device.alone and not seat.tasks:
                task = seat.device.alone.popleft().task
            elif self._waiting and not seat.reserved and not self._waiting[0].exclusive:
                task = self._waiting.popleft()
            else:
                continue
            self._waited[task.number] = self._waited.get(task.number, 0.0) + lane.waited()
            lane.begin(task)
            self._events.append(Started(task))

    def _in_turns(self, seats: Sequence[Seat]) -> list[Lane]:
        turns = zip_longest(*(seat.lanes for seat in seats))
        return [lane for turn in turns for lane in turn if lane is not None]

    def _lanes(self) -> list[Lane]:
        return self._in_turns(self._seats)

    def _hear(self, worker: Worker, message: dict[str, Any] | None) -> None:
        seat = next((seat for seat in self._seats if seat.worker is worker), None)
        if seat is None:
            return  # it was dismissed
        if message is None:
            self._bury(seat, worker)
        elif "machine" in message:
            raise MachineError(f"a worker on {seat.device.name}: {message['machine']}")
        elif "evaluator" in message:
            raise EvaluatorError(message["evaluator"])
        elif "ready" in message:
            worker.ready = True
            del seat.lanes[message["lanes"] :]  # it has fewer where its evaluator cannot stop
        elif (lane := seat.lane_of(message["number"])) is None or lane.task is None:
            return
        elif "result" in message:
            self._take_result(lane, message)
        else:
            self._events.append(Progressed(lane.task, message["images"]))

    def _take_result(self, lane: Lane, message: dict[str, Any]) -> None:
        measurement, seat = decode_measurement(message["result"]), lane.seat
        self._stillborn = 0
        if message["unusable"]:  # what one of them did, and none of them can go on
            seat.dismiss()
            for task in seat.free():
                self._fail(seat, task, measurement)
            return
        task = lane.free()
        if not message["memory"]:
            self._finish(task, measurement)
            return
        if not seat.tasks:
            seat.dismiss()
        self._fail(seat, task, measurement)

    def _fail(self, seat: Seat, task: Task, measurement: Measurement) -> None:
        """A task failed, perhaps for what others did: it is tried once more, or that is its measurement."""
        if self._try_again(seat, task):
            return
        if self._attempts > 1:
            times = f"({self._attempts} times, the last time alone)"
            measurement = replace(measurement, error=f"{measurement.error} {times}")
        self._finish(task, measurement)

    def _finish(self, task: Task, measurement: Measurement) -> None:
        self._tries.pop(task.number, None)
        self._tell_finished(task, measurement)

    def _try_again(self, seat: Seat, task: Task) -> bool:
        """Whether a task has another try: alone on its device, for others may have taken the memory."""
        tries = self._tries[task.number] = self._tries.get(task.number, 0) + 1
        if tries >= self._attempts:
            return False
        seat.device.alone.append(Alone(task, fresh=True))
        return True

    def _bury(self, seat: Seat, worker: Worker) -> None:
        """A worker has died: its tasks are tried once more; then something is wrong with the machine."""
        seat.worker = None
        death, tasks = faults.of_end(worker.end()), seat.free()
        if not tasks and not worker.overdue:
            self._count_stillborn(f"one {death}")
        for task in tasks:
            # Of several one hangs, and nobody knows which.
            if (not worker.overdue or len(tasks) > 1) and self._try_again(seat, task):
                continue
            if worker.overdue:
                error = f"hung: no result {self._grace:g} s past the time limit of {self._time_limit:g} s"
                seconds = {"seconds": self._time_limit + self._grace}
                self._finish(task, Measurement("failed", seconds, error, device=seat.device.name))
                continue
            times = "" if self._attempts == 1 else f", {self._attempts} times, the last time alone"
            raise MachineError(
                f"a worker on {seat.device.name} {death}{self._last_words()} with child {task.number} "
                f"({task.proposal.cell}){times}: see {self._log}; {faults.GO_ON}"
            )

    def _count_stillborn(self, reason: str, count: int = 1) -> None:
        """Workers end before they have a task; some may, as all do when their server is killed."""
        self._stillborn += count
        if self._stillborn > ATTEMPTS * len(self._seats):
            raise MachineError(
                f"workers do not start ({reason}){self._last_words()}: see {self._log}; {faults.GO_ON}"
            )

    def _judge(self) -> None:
        """Nobody is waited for without a limit."""
        for seat in self._seats:
            worker = seat.worker
            if worker is None or worker.overdue:
                continue
            if worker.ready:
                limit = self._time_limit + self._grace
                watched = [lane.watched for lane in seat.lanes if lane.watched is not None]
            else:
                limit, watched = self._start_limit, [worker.watched]
            for one in watched:
                one.look()
            if any(one.stopped > limit for one in watched):
                raise MachineError(
                    f"worker {worker.pid} on {seat.device.name} is stopped: continue it (kill -CONT "
                    f"{worker.pid}) or end it, {faults.GO_ON}"
                )
            if any(one.running > limit for one in watched):
                if not worker.ready:
                    raise MachineError(
                        f"workers do not start (worker {worker.pid} on {seat.device.name} is not ready "
                        f"after {limit:g} s){self._last_words()}: see {self._log}"
                    )
                worker.give_up()

    def _last_words(self) -> str:
        return faults.last_line(self._log, self._log_begin)

    def _server_complaints(self) -> bytes:
        """What a server said that cannot serve, which the log gets too."""
        server = self._server or fork_server.running_server(WORKER)
        complaints = server.complaints if server is not None else b""
        with suppress(OSError), self._log.open("ab") as log:
            log.write(complaints)
        return complaints

    def _start_worker(self, stderr: IO[bytes], device: str) -> Process:
        if self._forks(device):
            return self._serving().fork(stderr, self._start_limit)
        return Program(launch.command(WORKER), stderr)

    def _forks(self, device: str) -> bool:
        # A second is nothing beside a child on a GPU, and forking has not been tried with CUDA.
        return fork_server.AVAILABLE and device == "cpu"

    def _serving(self) -> ForkServer:
        server = fork_server.running_server(WORKER) or self._server
        if server is None or not server.alive:
            self._close_server()
            server = self._server = ForkServer(WORKER)
        return server

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
