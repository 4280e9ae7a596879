"""Tasks side by side in one worker: each is what it is alone, and what one of them does is its own."""

import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from faulty import STEPPING, Source, logged
from pnas_fast.data import load
from pnas_fast.engine import TrainingSettings, streams
from pnas_fast.engine.streams import AHEAD, Ahead, HostStream, Steps, to_end
from pnas_fast.evaluation import train_child
from pnas_fast.evaluation.train import plain_settings, train_spec
from pnas_fast.executors import fork_server as fork_server_module
from pnas_fast.executors import lanes as lanes_module
from pnas_fast.executors.fork_server import end_servers, fork_server
from pnas_fast.executors.lanes import TURN, Lanes
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.executors.process import WORKER, Program
from pnas_fast.protocols import (
    Drained,
    ExecutorEvent,
    Finished,
    MachineError,
    Measurement,
    Progressed,
    Proposal,
    Spec,
    Started,
    Task,
)
from pnas_fast.runs.weights import child_file
from pnas_fast.space import Cell

SETTINGS = TrainingSettings(
    filters=4, epochs=2, batch=8, train_images=128, device="cpu", backend="eager", drop_path=0.3
)
CELLS = [
    Cell.parse(text)
    for text in ("0:sep3x3+1:max_pool3x3", "0:identity+1:avg_pool3x3", "0:conv1x7_7x1+0:identity")
]


def task(number: int, what: str = "works", **note: Any) -> Task:
    return Task(number, Proposal(CELLS[number % 3], 2, note={"do": what, **note}), number)


def run(
    executor: LocalExecutor,
    tasks: Sequence[Task],
    seen: Callable[[ExecutorEvent], object] = lambda event: None,
) -> dict[int, Measurement]:
    for one in tasks:
        executor.submit(one)
    found: dict[int, Measurement] = {}
    while len(found) < len(tasks):
        for event in executor.events():
            seen(event)
            if isinstance(event, Finished):
                found[event.task.number] = event.measurement
    return found


def stepping(folder: Path, lanes: int = 3, spec: Spec = STEPPING, **more: Any) -> LocalExecutor:
    executor = LocalExecutor(["cpu"], folder, more.pop("time_limit", 60.0), lanes=lanes, **more)
    executor.start(spec, Source())
    return executor


def processes(folder: Path, number: int) -> list[int]:
    """Those that began a task."""
    return [pid for pid, task, what in logged(folder) if task == number and what == "begins"]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """One server for all, or each test would import PyTorch anew."""
    if fork_server_module.AVAILABLE:
        fork_server(WORKER)
    yield
    end_servers()


# Real children.


def training(folder: Path, lanes: int, settings: TrainingSettings = SETTINGS) -> LocalExecutor:
    folder.mkdir()
    return stepping(folder, lanes, train_spec(settings, "digits"))


def told(measurement: Measurement) -> Measurement:
    """What does not depend on the clock."""
    return replace(measurement, values={n: v for n, v in measurement.values.items() if "second" not in n})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Measurement, bytes]]:
    """Four children one after the other in one worker."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    with training(folder, 1) as executor:
        found = run(executor, [task(number) for number in range(4)])
    return {n: (told(one), child_file(folder, n).read_bytes()) for n, one in found.items()}


def test_children_side_by_side_have_the_bits_of_each_alone(
    tmp_path: Path, alone: dict[int, tuple[Measurement, bytes]]
) -> None:
    events: list[ExecutorEvent] = []
    with training(tmp_path / "run", 3) as executor:
        found = run(executor, [task(number) for number in range(4)], events.append)
    assert {n: (told(one), child_file(tmp_path / "run", n).read_bytes()) for n, one in found.items()} == alone
    epochs = [event.task.number for event in events if isinstance(event, Progressed)]
    assert sorted(epochs[:3]) == [0, 1, 2]  # each has an epoch behind it before any has two
    began = [type(event) for event in events if isinstance(event, Started | Finished)]
    assert began[:4] == [Started, Started, Started, Finished]
    assert [event.workers for event in events if isinstance(event, Drained)] == [3]


def test_a_worker_killed_with_children_in_flight_loses_none(
    tmp_path: Path, alone: dict[int, tuple[Measurement, bytes]]
) -> None:
    killed: list[int] = []
    events: list[ExecutorEvent] = []
    with training(tmp_path / "run", 3) as executor:

        def kill(event: ExecutorEvent) -> None:
            events.append(event)
            worker = executor._seats[0].worker
            if isinstance(event, Progressed) and not killed and worker is not None:
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(executor._seats[0].tasks)

        found = run(executor, [task(number) for number in range(4)], kill)
    assert killed == [3]
    assert {n: (told(one), child_file(tmp_path / "run", n).read_bytes()) for n, one in found.items()} == alone
    # Those three are tried again, one at a time, and then the fourth begins.
    began = [event for event in events if isinstance(event, Started | Finished)][3:]
    assert [type(event) for event in began] == [Started, Finished] * 4
    assert [event.task.number for event in began] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_child_that_fails_is_one_failed_trial(
    tmp_path: Path, alone: dict[int, tuple[Measurement, bytes]]
) -> None:
    faults = {str(CELLS[1]): "exception"}
    settings = {"settings": plain_settings(SETTINGS), "data": "digits", "faults": faults}
    folder = tmp_path / "run"
    folder.mkdir()
    with stepping(folder, 3, Spec("faulty:FaultyTrain", settings)) as executor:
        found = run(executor, [task(number) for number in range(4)])
    assert found[1].error == "ValueError: this cell is cursed"
    for number in (0, 2, 3):
        assert (told(found[number]), child_file(folder, number).read_bytes()) == alone[number]
    assert len({pid for pid, _, _ in logged(folder)}) == 1


# What tasks do to each other.


def test_as_many_tasks_as_lanes_are_in_one_process(tmp_path: Path) -> None:
    events: list[ExecutorEvent] = []
    with stepping(tmp_path) as executor:
        found = run(executor, [task(n, beside=3) for n in range(3)] + [task(3)], events.append)
    assert found == {n: Measurement("done", {"accuracy": n / 100}, device="cpu") for n in range(4)}
    assert len({pid for pid, _, _ in logged(tmp_path)}) == 1
    for kind in (Started, Progressed, Finished):
        assert sorted(event.task.number for event in events if isinstance(event, kind)) == [0, 1, 2, 3]
    assert isinstance(events[-1], Drained)
    assert events[-1].workers == 3


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raises", "ValueError: this cell is cursed"),
        ("is nan", "accuracy is nan"),
        ("exits", "SystemExit: enough"),
    ],
)
def test_what_one_cell_does_is_its_one_failed_measurement(tmp_path: Path, what: str, error: str) -> None:
    with stepping(tmp_path) as executor:
        found = run(executor, [task(0, beside=3), task(1, what, beside=3), task(2, beside=3)])
    assert [found[n].error for n in range(3)] == [None, error, None]
    assert len(logged(tmp_path)) == 6  # each began once, and ended once
    assert len({pid for pid, _, _ in logged(tmp_path)}) == 1


def test_a_child_without_memory_is_tried_again_when_others_are_done(tmp_path: Path) -> None:
    tasks = [task(0, beside=3), task(1, "is big once", beside=3), task(2, beside=3), task(3)]
    with stepping(tmp_path) as executor:
        found = run(executor, tasks)
    assert all(one.done for one in found.values())
    assert [len(processes(tmp_path, n)) for n in range(4)] == [1, 2, 1, 1]
    first, second = processes(tmp_path, 1)
    assert first == processes(tmp_path, 0)[0] == processes(tmp_path, 2)[0] != second


def test_the_death_of_a_process_is_a_try_of_each_that_was_there(tmp_path: Path) -> None:
    tasks = [task(0, "is killed once", beside=3, steps=0), task(1, beside=3), task(2, beside=3)]
    with stepping(tmp_path) as executor:
        found = run(executor, tasks)
    assert all(one.done for one in found.values())
    first = {processes(tmp_path, n)[0] for n in range(3)}
    assert len(first) == 1
    again = [pid for n in range(3) for pid in processes(tmp_path, n)[1:]]
    assert len(set(again)) == len(again) == 3  # each alone, in a fresh one


def test_who_kills_its_process_alone_too_stops_the_run(tmp_path: Path) -> None:
    with (
        stepping(tmp_path) as executor,
        pytest.raises(MachineError, match=r"with child 0 .*2 times, the last time alone"),
    ):
        run(executor, [task(0, "is killed", beside=3, steps=0), task(1, beside=3), task(2, beside=3)])


def test_of_several_only_the_one_that_hangs_fails(tmp_path: Path) -> None:
    tasks = [task(0, "hangs", beside=3, steps=0), task(1, beside=3), task(2, beside=3)]
    with stepping(tmp_path, time_limit=0.2, grace=0.8) as executor:
        found = run(executor, tasks)
    assert [found[n].error for n in range(3)] == [
        "hung: no result 0.8 s past the time limit of 0.2 s", None, None,
    ]  # fmt: skip


def test_a_task_has_its_time_from_when_it_began(tmp_path: Path) -> None:
    with stepping(tmp_path, time_limit=30.0) as executor:
        executor.submit(task(0, "hangs"))
        lanes = executor._seats[0].lanes
        while not executor._seats[0].tasks:
            list(executor.events())
        assert lanes[0].watched is not None
        lanes[0].watched.running = 25.0
        executor.submit(task(1, "hangs"))
        while executor._seats[0].tasks < 2:
            executor._advance()
        assert lanes[1].watched is not None
        assert lanes[1].watched.running < 25.0 <= lanes[0].watched.running


def test_asked_to_end_what_has_begun_is_finished(tmp_path: Path) -> None:
    with stepping(tmp_path, 2) as executor:
        for n in range(5):
            executor.submit(task(n, beside=2))
        events: list[ExecutorEvent] = []
        while sum(isinstance(event, Started) for event in events) < 2:
            events += executor.events()
        executor.drain()
        while not isinstance(events[-1], Drained):
            events += executor.events()
    assert sorted(event.task.number for event in events if isinstance(event, Finished)) == [0, 1]


def test_an_evaluator_that_cannot_stop_is_at_one_task(tmp_path: Path) -> None:
    events: list[ExecutorEvent] = []
    with stepping(tmp_path, spec=Spec("faulty:Faulty", {})) as executor:
        run(executor, [task(n) for n in range(3)], events.append)
    began = [type(event) for event in events if isinstance(event, Started | Finished)]
    assert began == [Started, Finished] * 3
    assert isinstance(events[-1], Drained)
    assert events[-1].workers == 1


# A stand-in for a worker on a GPU: it answers when it has as many tasks as the first one's note says.
FAKE = """
import json, os, sys
from pathlib import Path
setup = json.loads(sys.stdin.readline())
folder = Path(setup["folder"])
print(json.dumps({"ready": True, "lanes": setup["lanes"]}), flush=True)
tasks = []
for line in sys.stdin:
    tasks.append(json.loads(line))
    with (folder / "log").open("a") as file:
        file.write(json.dumps([os.getpid(), tasks[-1]["number"], "begins"]) + "\\n")
    alone = (folder / "again").exists()
    if len(tasks) < (1 if alone else tasks[0]["note"]["beside"]):
        continue
    (folder / "again").touch()
    for task in reversed(tasks):
        breaks = task["note"]["do"] == "breaks" or (task["note"]["do"] == "breaks once" and not alone)
        result = {"status": "done", "values": {"accuracy": 0.5}, "error": None, "curves": {}, "device": ""}
        if breaks:
            result |= {"status": "failed", "error": "CUDA error: unspecified launch failure"}
        message = {"number": task["number"], "result": result, "memory": False, "unusable": breaks}
        print(json.dumps(message), flush=True)
    tasks = []
"""


@pytest.mark.parametrize("what", ["breaks once", "breaks"])
def test_an_error_that_ends_the_use_of_the_card_is_a_try_of_each(tmp_path: Path, what: str) -> None:
    command = (sys.executable, "-c", textwrap.dedent(FAKE))
    executor = LocalExecutor(
        ["cuda:0"], tmp_path, 60.0, lanes=3, start=lambda stderr, device: Program(command, stderr)
    )
    with executor:
        executor.start(STEPPING, Source())
        found = run(executor, [task(n, what if n == 1 else "works", beside=3) for n in range(3)])
    again = "CUDA error: unspecified launch failure (2 times, the last time alone)"
    assert [found[n].error for n in range(3)] == [None, again if what == "breaks" else None, None]
    # The third had answered before; the others are tried again in processes of their own.
    assert [len(set(processes(tmp_path, n))) for n in range(3)] == [2, 2, 1]
    assert len({pid for pid, _, _ in logged(tmp_path)}) == 3


def test_few_tasks_are_spread_over_devices(tmp_path: Path) -> None:
    command = (sys.executable, "-c", textwrap.dedent(FAKE))
    executor = LocalExecutor(
        ["cuda:0", "cuda:1"], tmp_path, 60.0, lanes=2, start=lambda stderr, device: Program(command, stderr)
    )
    with executor:
        executor.start(STEPPING, Source())
        run(executor, [task(n, beside=1) for n in range(2)])
        assert all(seat.worker is not None for seat in executor._seats)


# Streams.


class CanStop:
    def measuring(self, *given: Any) -> Any:
        raise NotImplementedError


class Late(HostStream):
    """A stream whose work is done when it has been asked so many times."""

    def __init__(self, asked: int) -> None:
        self.asked, self.finished = asked, 0

    def mark(self) -> Any:
        left = [self.asked]

        class Mark:
            def query(self) -> bool:
                left[0] -= 1
                return left[0] < 0

        return Mark()

    def finish(self) -> None:
        self.finished += 1


def test_no_more_steps_wait_than_there_should() -> None:
    ahead, waits = Ahead(Late(10**9)), 0
    for step in range(1000):
        if any(ahead.until_few()) if step < AHEAD else next(ahead.until_few(), False):
            waits = step
            break
        ahead.count()
    assert waits == AHEAD
    done = Ahead(Late(3))
    for _ in range(10 * AHEAD):
        list(done.until_few())
        done.count()
    assert list(done.until_done()) == [True] * 3
    at_once = Ahead(HostStream())
    assert list(at_once.until_done()) == []


def test_a_child_on_a_late_stream_is_the_same_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data, late = load("digits").subset(128), Late(2)
    plain, _ = train_child(CELLS[0], SETTINGS, data, 3)
    monkeypatch.setattr("pnas_fast.evaluation.child.current_stream", lambda device: late)
    monkeypatch.setattr("pnas_fast.engine.evaluation.current_stream", lambda device: late)
    monkeypatch.setattr(streams, "PAUSE", 0.0)
    waited, _ = train_child(CELLS[0], SETTINGS, data, 3)
    assert waited.epoch_losses == plain.epoch_losses
    assert waited.accuracy == plain.accuracy
    assert late.finished == 1
    failed, _ = train_child(CELLS[0], replace(SETTINGS, time_limit=0.001), data, 3)
    assert failed.error is not None
    assert late.finished == 2  # before its memory is another's


def test_a_task_that_waits_for_the_device_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on where it can; the process sleeps when nobody can."""
    slept: list[float] = []
    monkeypatch.setattr("pnas_fast.executors.lanes.time.sleep", slept.append)
    order: list[tuple[int, bool]] = []

    def answer(task: Task) -> Steps[dict[str, Any]]:
        for step in range(3 * TURN):
            waits = task.number == 0 and step < 4
            order.append((task.number, waits))
            yield waits
        return {"number": task.number}

    lanes = Lanes(CanStop(), "cpu", 2, answer)
    assert len(lanes) == 2
    lanes.begin(task(0))
    lanes.begin(task(1))
    messages = [message for _ in range(8) for message in lanes.advance()] if lanes.busy else []
    assert messages == [{"number": 1}, {"number": 0}]
    assert order[:2] == [(0, True), (1, False)]
    assert order.index((0, False)) > 3 * TURN  # the other had done all of its own by then
    assert len(slept) == 0


def test_nobody_that_can_go_on_means_a_little_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("pnas_fast.executors.lanes.time.sleep", slept.append)

    def answer(task: Task) -> Steps[dict[str, Any]]:
        yield True
        yield True
        return {}

    lanes = Lanes(CanStop(), "cpu", 2, answer)
    lanes.begin(task(0))
    lanes.begin(task(1))
    assert [lanes.advance() for _ in range(3)] == [[], [], [{}, {}]]
    assert len(slept) == 2


def test_each_task_is_done_on_its_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []

    class Numbered(HostStream):
        made = 0

        def __init__(self) -> None:
            Numbered.made += 1
            self.number = Numbered.made

        def entered(self) -> Any:
            entered.append(self.number)
            return nullcontext()

    monkeypatch.setattr(lanes_module, "new_stream", lambda device: Numbered())

    def answer(task: Task) -> Steps[dict[str, Any]]:
        yield from [False] * TURN
        return {"on": entered[-1]}

    lanes = Lanes(CanStop(), "cpu", 2, answer)
    for number in range(2):
        lanes.begin(task(number))
    assert lanes.advance() == []
    assert lanes.advance() == [{"on": 1}, {"on": 2}]
    assert entered == [1, 2, 1, 2]


def test_work_by_itself_is_done_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("pnas_fast.engine.streams.time.sleep", slept.append)

    def work() -> Steps[str]:
        yield False
        yield True
        yield False
        return "done"

    assert to_end(work()) == "done"
    assert len(slept) == 1


@pytest.mark.gpu
def test_children_side_by_side_on_a_card_have_the_bits_of_each_alone(tmp_path: Path) -> None:
    settings = replace(SETTINGS, device="cuda", backend="auto", precision="auto")
    found = []
    for lanes in (1, 3):
        folder = tmp_path / str(lanes)
        folder.mkdir()
        with LocalExecutor(["cuda:0"], folder, 600.0, lanes=lanes) as executor:
            executor.start(train_spec(settings, "digits"), Source())
            results = run(executor, [task(number) for number in range(6)])
        assert all(one.done for one in results.values())
        files = {n: child_file(folder, n).read_bytes() for n in results}
        found.append(({n: one.curves for n, one in results.items()}, files))
    assert found[0] == found[1]
    assert torch.cuda.is_available()
