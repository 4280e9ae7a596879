"""The executor of local processes: what comes of tasks, and what when workers die, hang or cannot start."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from faulty import SPEC, Source, logged
from pnas_fast.data import load
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.profiling import trace_file
from pnas_fast.evaluation.train import train_spec
from pnas_fast.executors import fork_server as fork_server_module
from pnas_fast.executors.fork_server import end_servers, fork_server
from pnas_fast.executors.inline import InlineExecutor
from pnas_fast.executors.local import LOG, LocalExecutor
from pnas_fast.executors.messages import (
    Setup,
    decode_measurement,
    decode_setup,
    decode_task,
    encode_measurement,
    encode_setup,
    encode_task,
)
from pnas_fast.executors.process import WORKER, Inbox, Process, Program, Worker
from pnas_fast.executors.shared import read_data, shared_data
from pnas_fast.protocols import (
    Drained,
    EvaluatorError,
    Executor,
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
from pnas_fast.runs.weights import WeightsError, child_file, load_child
from pnas_fast.space import Cell

pytestmark = pytest.mark.slow

SETTINGS = TrainingSettings(
    filters=4, epochs=2, batch=32, train_images=128, device="cpu", backend="eager", time_limit=60.0
)
CELL = Cell.parse("0:sep3x3+1:max_pool3x3")
RESULT = {"result": encode_measurement(Measurement("done", {})), "memory": False, "unusable": False}

# A stand-in for a worker on a GPU: it does to each task what its note says, and logs when.
FAKE = """
import json, os, sys, time
from pathlib import Path
setup = json.loads(sys.stdin.readline())
device, folder = setup["device"], Path(setup["folder"])
def log(what):
    with (folder / "log").open("a") as file:
        file.write(json.dumps([device, os.getpid(), what]) + "\\n")
log("born")
print(json.dumps({"ready": True, "lanes": 1}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    what, number = task["note"]["do"], task["number"]
    seen = folder / f"seen{number}"
    again = seen.exists()
    seen.touch()
    log(f"begins {what}")
    once = what.endswith(" once") and again
    if what == "slow":
        time.sleep(0.2)
    if what == "sends half":
        sys.stdout.write('{"half a')
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    result = {"status": "done", "values": {"accuracy": 0.5}, "error": None, "curves": {}, "device": device}
    big, broken = what.startswith("big") and not once, what.startswith("breaks") and not once
    if big or broken:
        result |= {"status": "failed", "error": "out of memory: 9 GiB" if big else "CUDA error"}
    log(f"ends {what}")
    print(json.dumps({"number": number, "result": result, "memory": big, "unusable": broken}), flush=True)
"""


def fake_executor(folder: Path, devices: tuple[str, ...], program: str = FAKE, **more: Any) -> LocalExecutor:
    command = (sys.executable, "-c", textwrap.dedent(program))
    executor = LocalExecutor(
        devices, folder, 60.0, start=lambda stderr, device: Program(command, stderr), **more
    )
    executor.start(SPEC, Source())
    return executor


def faulty(folder: Path, workers: int = 1, spec: Spec = SPEC, **more: Any) -> LocalExecutor:
    executor = LocalExecutor(["cpu"] * workers, folder, more.pop("time_limit", 60.0), **more)
    executor.start(spec, Source())
    return executor


def task(number: int, what: str = "works", **more: Any) -> Task:
    return Task(number, Proposal(CELL, 2, note={"do": what}), more.pop("seed", number), **more)


def run(
    executor: Executor, tasks: Sequence[Task], seen: Callable[[ExecutorEvent], object] = lambda event: None
) -> dict[int, Measurement]:
    for one in tasks:
        executor.submit(one)
    found: dict[int, Measurement] = {}
    while len(found) < len(tasks):
        events = list(executor.events())
        assert events
        for event in events:
            seen(event)
            if isinstance(event, Finished):
                found[event.task.number] = event.measurement
    return found


@pytest.fixture(scope="module", autouse=True)
def server() -> Any:
    """One server for all, or each test would import PyTorch anew."""
    if fork_server_module.AVAILABLE:
        fork_server(WORKER)
    yield
    end_servers()


def test_every_task_is_started_reports_and_finishes(tmp_path: Path) -> None:
    events: list[ExecutorEvent] = []
    tasks = [task(number) for number in range(5)]
    with faulty(tmp_path, 2) as executor:
        found = run(executor, tasks, events.append)
        assert list(executor.events()) == []
        assert run(executor, [task(9, seed=50)])[9].values == {"accuracy": 0.5}
    for kind in (Started, Progressed, Finished):
        assert sorted(event.task.number for event in events if isinstance(event, kind)) == [0, 1, 2, 3, 4]
    assert [type(event) for event in events].count(Drained) == 1
    assert events[-1] == Drained(pytest.approx(0.0, abs=60.0), 2)
    assert found == {
        number: Measurement("done", {"accuracy": number / 100}, device="cpu") for number in range(5)
    }
    assert not list(tmp_path.glob(".data"))


def test_tasks_are_taken_in_the_order_they_were_submitted_in(tmp_path: Path) -> None:
    order: list[int] = []
    with faulty(tmp_path) as executor:
        run(
            executor,
            [task(n) for n in (3, 1, 2)],
            lambda e: order.append(getattr(e, "task", task(-1)).number),
        )
    assert [number for number in dict.fromkeys(order) if number >= 0] == [3, 1, 2]


def test_a_task_may_be_submitted_while_others_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    with faulty(tmp_path, 2) as executor:
        executor.submit(task(0, "waits"))
        seen: list[ExecutorEvent] = []
        while not any(isinstance(event, Progressed) for event in seen):
            seen += executor.events()
        executor.submit(task(1))
        while not any(isinstance(event, Finished) for event in seen):
            seen += executor.events()
        (tmp_path / "go").write_text("go")
        while not any(isinstance(event, Drained) for event in seen):
            seen += executor.events()
    assert [event.task.number for event in seen if isinstance(event, Finished)] == [1, 0]
    assert sum(isinstance(event, Drained) for event in seen) == 1


def test_events_that_were_not_taken_are_told_later(tmp_path: Path) -> None:
    with faulty(tmp_path) as executor:
        executor.submit(task(0))
        kinds = []
        while not kinds or kinds[-1] is not Drained:
            kinds.append(type(next(executor.events())))
    assert kinds == [Started, Progressed, Finished, Drained]


def test_what_a_cell_does_is_its_one_failed_measurement(tmp_path: Path) -> None:
    tasks = [task(0, "raises"), task(1, "exits"), task(2, "is nan"), task(3)]
    with faulty(tmp_path) as executor:
        found = run(executor, tasks)
    assert [found[number].error for number in range(4)] == [
        "ValueError: this cell is cursed", "SystemExit: enough", "accuracy is nan", None,
    ]  # fmt: skip
    assert found[0] == Measurement("failed", {}, "ValueError: this cell is cursed", device="cpu")
    assert len({pid for pid, _, _ in logged(tmp_path)}) == 1
    assert "in raises" in (tmp_path / LOG).read_text()


def test_a_child_without_memory_is_tried_again_alone(tmp_path: Path) -> None:
    with faulty(tmp_path, 2) as executor:
        found = run(executor, [task(0, "is big once"), task(1, "is big"), task(2)])
    assert found[0].done
    assert found[1].error == "out of memory: 9 GiB (2 times, the last time alone)"
    pids = [pid for pid, number, _ in logged(tmp_path) if number == 1]
    assert len(set(pids)) == 2


def test_what_is_only_tried_is_not_tried_again(tmp_path: Path) -> None:
    with faulty(tmp_path, attempts=1) as executor:
        assert run(executor, [task(0, "is big once")])[0].error == "out of memory: 9 GiB"
        with pytest.raises(MachineError, match=r"was killed \(SIGKILL\).* with child 1 \(0:sep3x3"):
            run(executor, [task(1, "is killed once")])


def test_a_child_whose_worker_dies_is_tried_once_more(tmp_path: Path) -> None:
    with faulty(tmp_path, 2) as executor:
        found = run(executor, [task(0, "is killed once"), task(1), task(2, "leaves once")])
    assert all(measurement.done for measurement in found.values())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "is killed",
            r"was killed \(SIGKILL\), perhaps by the system for want of memory .*2 times, .* alone",
        ),
        ("leaves", r"ended with exit status 7 \(about to leave\) with child 0 .*workers\.log"),
        (
            "fills the disk",
            r"No space left on device: .*weights \(free space on that disk, then run the same",
        ),
    ],
)
def test_what_the_machine_does_stops_the_run_and_is_no_measurement(
    tmp_path: Path, what: str, message: str
) -> None:
    seen: list[ExecutorEvent] = []
    with faulty(tmp_path) as executor:
        with pytest.raises(MachineError, match=message) as caught:
            run(executor, [task(0, what), task(1)], seen.append)
        with pytest.raises(MachineError):
            list(executor.events())
    assert "\n" not in str(caught.value)
    assert not any(isinstance(event, Finished) and event.task.number == 0 for event in seen)


def test_what_finished_before_a_fault_is_told_first(tmp_path: Path) -> None:
    """Of two messages that were read at once, the fault's came first."""
    with faulty(tmp_path, 2) as executor:
        run(executor, [task(0), task(1)])
        workers = [seat.worker for seat in executor._seats]
        executor.submit(task(2, "hangs"))
        executor.submit(task(3, "hangs"))
        while not all(seat.tasks for seat in executor._seats):
            list(executor.events())
        assert workers[0] is not None
        assert workers[1] is not None
        executor._inbox.put((workers[0], {"machine": "the disk is full"}))
        executor._inbox.put((workers[1], {"number": 3} | RESULT))
        seen: list[ExecutorEvent] = []
        with pytest.raises(MachineError, match="a worker on cpu: the disk is full"):
            run(executor, [task(4, "hangs"), task(5, "hangs")], seen.append)
    assert [event.task.number for event in seen if isinstance(event, Finished)] == [3]


def test_an_evaluator_that_cannot_answer_stops_the_run(tmp_path: Path) -> None:
    with faulty(tmp_path) as executor, pytest.raises(EvaluatorError, match="no such cell in the file"):
        run(executor, [task(0, "cannot answer")])
    with (
        faulty(tmp_path, spec=Spec("faulty:Missing", {})) as executor,
        pytest.raises(EvaluatorError, match="evaluator faulty:Missing: faulty has no Missing"),
    ):
        run(executor, [task(0)])


def test_a_hanging_worker_is_killed(tmp_path: Path) -> None:
    with faulty(tmp_path, time_limit=0.1, grace=0.5) as executor:
        found = run(executor, [task(0, "hangs"), task(1)])
    assert found[0].error == "hung: no result 0.5 s past the time limit of 0.1 s"
    assert found[0].device == "cpu"
    assert found[1].done


def test_a_result_that_was_said_counts_whatever_the_time(tmp_path: Path) -> None:
    """The executor was stopped while a worker was done: the deadline is over, the result lies there."""
    os.mkfifo(tmp_path / "go")
    with faulty(tmp_path, time_limit=0.1, grace=0.2) as executor:
        executor.submit(task(0, "waits"))
        seen: list[ExecutorEvent] = []
        while not any(isinstance(event, Progressed) for event in seen):
            seen += executor.events()
        worker = executor._seats[0].worker
        assert worker is not None
        (tmp_path / "go").write_text("go")
        while executor._inbox.empty():
            time.sleep(0.01)
        assert executor._seats[0].lanes[0].watched is not None
        executor._seats[0].lanes[0].watched.running = 100.0
        while not any(isinstance(event, Finished) for event in seen):
            seen += executor.events()
    assert [event.measurement.done for event in seen if isinstance(event, Finished)] == [True]


def test_a_deadline_over_which_a_result_came_keeps_the_result(tmp_path: Path) -> None:
    """It comes in the moment in which the worker is given up."""
    with faulty(tmp_path) as executor:
        executor.submit(task(0, "hangs"))
        while not executor._seats[0].tasks:
            list(executor.events())
        worker = executor._seats[0].worker
        assert worker is not None
        executor._inbox.put((worker, {"number": 0} | RESULT))
        worker.give_up()
        events = list(executor.events())
        assert run(executor, [task(1)])[1].done
    assert [event.measurement.done for event in events if isinstance(event, Finished)] == [True]


def test_a_stopped_worker_is_not_slow(tmp_path: Path) -> None:
    with (
        faulty(tmp_path, time_limit=0.1, grace=0.4) as executor,
        pytest.raises(MachineError, match=r"worker \d+ on cpu is stopped: continue it \(kill -CONT \d+\)"),
    ):
        run(executor, [task(0, "stops itself")])


def test_workers_that_do_not_become_ready_are_not_waited_for_without_a_limit(tmp_path: Path) -> None:
    with (
        faulty(tmp_path, spec=Spec("faulty:Unready", {}), start_limit=0.5) as executor,
        pytest.raises(MachineError, match=r"do not start \(worker \d+ on cpu is not ready after 0\.5 s\)"),
    ):
        run(executor, [task(0)])


@pytest.mark.skipif(not fork_server_module.AVAILABLE, reason="processes are forked on Linux alone")
def test_a_fork_server_that_gives_no_answer_is_not_waited_for_without_a_limit(tmp_path: Path) -> None:
    stopped = fork_server(WORKER)
    with faulty(tmp_path, start_limit=0.2) as executor:
        os.kill(stopped.pid, signal.SIGSTOP)
        with pytest.raises(MachineError, match=r"do not start \(the process that .* no answer for 0\.2 s\)"):
            run(executor, [task(0)])
    assert not stopped.alive
    fork_server(WORKER)


def test_workers_that_cannot_start_are_a_fault_with_their_last_words(tmp_path: Path) -> None:
    with (
        fake_executor(tmp_path, ("cpu",), program="raise SystemExit('no such library')") as executor,
        pytest.raises(
            MachineError,
            match=r"do not start \(one ended with exit status 1\) \(no such library\): see .*log",
        ),
    ):
        run(executor, [task(0)])


def test_workers_that_end_as_soon_as_they_are_ready_are_a_fault(tmp_path: Path) -> None:
    program = 'import sys; sys.stdin.readline(); print(\'{"ready": true, "lanes": 1}\', flush=True)'
    with fake_executor(tmp_path, ("cpu",), program=program) as executor, pytest.raises(MachineError):
        run(executor, [task(0)])


def test_a_worker_without_data_says_so(tmp_path: Path) -> None:
    with faulty(tmp_path) as executor:
        for file in (tmp_path / ".data").iterdir():
            file.unlink()
        with pytest.raises(
            MachineError, match=r"No such file or directory: .*dataset\.json \(a folder was rem"
        ):
            run(executor, [task(0)])


def test_a_folder_that_is_gone_is_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        LocalExecutor(["cpu"], folder, 60.0) as executor,
        pytest.raises(MachineError, match=r"No such file or directory: .*run"),
    ):
        executor.start(SPEC, Source())


def test_a_child_without_memory_has_its_device_to_itself_once(tmp_path: Path) -> None:
    devices = ("cuda:0", "cuda:1") * 3
    kinds = ["big once", "slow", "slow", "slow", "slow", "slow", "big", *["slow"] * 9]
    with fake_executor(tmp_path, devices) as executor:
        found = run(executor, [task(number, what) for number, what in enumerate(kinds)])
    assert [found[number].done for number in range(len(kinds))] == [True] * 6 + [False] + [True] * 9
    assert found[6].error == "out of memory: 9 GiB (2 times, the last time alone)"
    lines = logged_devices(tmp_path)
    for what in ("big once", "big"):
        tries = [index for index, line in enumerate(lines) if line[2] == f"begins {what}"]
        assert len(tries) == 2
        first, second = (lines[index] for index in tries)
        assert (first[0], first[1]) != (second[0], second[1])  # a fresh process
        assert_alone(lines, tries[1], what)
    # The other card went on meanwhile.
    assert {line[0] for line in lines} == {"cuda:0", "cuda:1"}


def test_an_exclusive_task_has_nothing_beside_it(tmp_path: Path) -> None:
    tasks = [task(number, "slow") for number in range(8)]
    tasks[3] = task(3, "timed", exclusive=True)
    tasks[4] = task(4, "timed", exclusive=True)
    started: list[int] = []
    with fake_executor(tmp_path, ("cuda:0",) * 3) as executor:
        run(executor, tasks, lambda e: started.append(e.task.number) if isinstance(e, Started) else None)
    assert started == list(range(8))
    lines = logged_devices(tmp_path)
    for index in [index for index, line in enumerate(lines) if line[2] == "begins timed"]:
        assert_alone(lines, index, "timed")
    assert len({pid for _, pid, _ in lines}) == 3  # nobody had to start anew


def test_the_last_task_alone_on_one_device_is_not_waited_for_by_another(tmp_path: Path) -> None:
    """Its device's processes are gone, the other's is idle."""
    with fake_executor(tmp_path, ("cuda:0", "cuda:1")) as executor:
        found = run(executor, [task(0, "works"), task(1, "big once")])
    assert found[1].done


def logged_devices(folder: Path) -> list[tuple[str, int, str]]:
    return [tuple(json.loads(line)) for line in (folder / "log").read_text().splitlines()]


def assert_alone(lines: list[tuple[str, int, str]], index: int, what: str) -> None:
    device = lines[index][0]
    mine = [line for line in lines[:index] if line[0] == device]
    begun = sum(text.startswith("begins") for _, _, text in mine)
    ended = sum(text.startswith("ends") for _, _, text in mine)
    assert begun == ended  # nobody else at work on that card
    after = [line[2] for line in lines[index + 1 :] if line[0] == device]
    assert after[0] == f"ends {what}"


def test_a_process_that_cannot_go_on_is_replaced_and_its_child_tried_again(tmp_path: Path) -> None:
    with fake_executor(tmp_path, ("cuda:0",)) as executor:
        found = run(executor, [task(0, "breaks"), task(1, "breaks once"), task(2, "works")])
    assert found[0].error == "CUDA error (2 times, the last time alone)"
    assert found[1].done
    assert found[2].done


def test_half_a_reply_is_none(tmp_path: Path) -> None:
    with fake_executor(tmp_path, ("cpu",)) as executor, pytest.raises(MachineError, match="SIGKILL"):
        run(executor, [task(0, "sends half")])


def test_workers_are_spread_over_devices_and_their_waiting_is_counted(tmp_path: Path) -> None:
    begun = time.monotonic()
    busy = 0.0
    events: list[ExecutorEvent] = []

    def count(event: ExecutorEvent) -> None:
        nonlocal busy
        events.append(event)
        busy += {Started: -1, Finished: 1}.get(type(event), 0) * time.monotonic()

    with fake_executor(tmp_path, ("cuda:0", "cuda:1")) as executor:
        run(executor, [task(0, "slow"), task(1, "works")], count)
        passed = time.monotonic() - begun
    finished = [event for event in events if isinstance(event, Finished)]
    assert {event.measurement.device for event in finished} == {"cuda:0", "cuda:1"}
    drained = events[-1]
    assert isinstance(drained, Drained)
    waited = drained.waited + sum(event.waited for event in finished)
    assert 0 < waited <= 2 * passed - busy + 0.01


def test_a_worker_that_has_ended_before_it_is_read_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = threading.Event()
    listen = Worker._listen

    def listen_late(worker: Worker) -> None:
        killed.wait()
        listen(worker)

    monkeypatch.setattr(Worker, "_listen", listen_late)
    inbox: Inbox = Inbox()
    setup = Setup(SPEC, "cpu", "", "", 1)
    command = (sys.executable, "-c", "")
    worker = Worker(lambda stderr, device: Program(command, stderr), setup, tmp_path / "log", inbox)
    worker.kill()
    killed.set()
    assert inbox.get(timeout=60) == (worker, None)


def real(folder: Path, settings: TrainingSettings = SETTINGS, workers: int = 1) -> LocalExecutor:
    executor = LocalExecutor(["cpu"] * workers, folder, settings.time_limit)
    executor.start(train_spec(settings, Source().identity()), Source())
    return executor


def same(measurement: Measurement) -> tuple[Any, ...]:
    """What does not depend on the clock."""
    values = {name: value for name, value in measurement.values.items() if "second" not in name}
    return measurement.status, values, measurement.error, measurement.curves, measurement.device


def test_a_real_worker_trains_and_leaves_weights(tmp_path: Path) -> None:
    events: list[ExecutorEvent] = []
    with real(tmp_path) as executor:
        found = run(executor, [task(3, seed=11), task(4, seed=11)], events.append)
    assert [event.images for event in events if isinstance(event, Progressed)] == [128, 256] * 2
    assert found[3].done
    assert same(found[3]) == same(found[4])
    assert len(found[3].curves["loss"]) == 2
    assert found[3].values["loss"] == found[3].curves["loss"][-1]
    assert 0 < found[3].values["validation_loss"] < 10
    assert "memory" not in found[3].values
    network = load_child(child_file(tmp_path, 3))
    assert network.parameters_count == found[3].values["parameters"]
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert not list(tmp_path.glob("**/*.tmp"))


def test_in_this_process_it_is_the_same_to_the_bit(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with real(tmp_path / "there") as executor:
        there = run(executor, [task(0, seed=11)])
    inline = InlineExecutor(tmp_path / "here")
    inline.start(train_spec(SETTINGS, Source().identity()), Source())
    here = run(inline, [task(0, seed=11)])
    assert same(here[0]) == same(there[0])
    files = [child_file(tmp_path / name, 0).read_bytes() for name in ("here", "there")]
    assert files[0] == files[1]


def test_weights_for_which_the_disk_has_no_room_are_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "children").touch()  # a file in the folder's place, as good as a full disk
    with real(tmp_path) as executor, pytest.raises(MachineError, match=r"(File exists|Not a dir).*children"):
        run(executor, [task(0)])


def test_where_nothing_is_forked_a_worker_imports_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(tmp_path) as executor:
        forked = run(executor, [task(0, seed=11)])
    monkeypatch.setattr(fork_server_module, "AVAILABLE", False)
    with real(tmp_path) as executor:
        alone = run(executor, [task(0, seed=11)])
        worker = executor._seats[0].worker
        assert worker is not None
        assert isinstance(worker.process, Program)
    assert alone[0].done
    assert same(alone[0]) == same(forked[0])


def test_workers_of_a_gpu_are_not_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []

    def started(command: Sequence[str], stderr: IO[bytes]) -> Process:
        commands.append(command)
        return None  # type: ignore[return-value]

    monkeypatch.setattr("pnas_fast.executors.local.Program", started)
    LocalExecutor(["cuda:1"], tmp_path, 60.0)._start_worker(BytesIO(), "cuda:1")
    ((interpreter, *rest, told),) = commands
    assert interpreter == sys.executable
    assert rest[:2] == ["-P", "-c"]
    assert json.loads(told)["module"] == WORKER


def test_a_real_worker_killed_at_work_is_replaced(tmp_path: Path) -> None:
    killed: list[int] = []
    with real(tmp_path) as executor:

        def kill(event: ExecutorEvent) -> None:
            worker = executor._seats[0].worker
            if isinstance(event, Progressed) and not killed and worker is not None:
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.pid)

        assert run(executor, [task(0, seed=1)], kill)[0].done
    assert killed


@pytest.mark.skipif(not fork_server_module.AVAILABLE, reason="processes are forked on Linux alone")
def test_workers_whose_server_is_killed_are_replaced(tmp_path: Path) -> None:
    before = fork_server(WORKER)
    with faulty(tmp_path, 2) as executor:
        run(executor, [task(0), task(1)])
        os.kill(before.pid, signal.SIGKILL)
        before.close()
        assert run(executor, [task(2)])[2].done
        own = executor._server
        assert own is not None
        assert own.alive
    assert not own.alive  # what nobody began early ends with its executor
    fork_server(WORKER)


def test_workers_that_cannot_be_forked_are_a_fault(tmp_path: Path) -> None:
    nowhere = fork_server_module.ForkServer("nowhere.at_all") if fork_server_module.AVAILABLE else None

    def start(errors: IO[bytes], device: str) -> Process:
        assert nowhere is not None
        return nowhere.fork(errors)

    with LocalExecutor(["cpu"], tmp_path, 60.0, start=start) as executor:
        executor.start(SPEC, Source())
        executor._server = nowhere
        with pytest.raises(
            MachineError,
            match=r"do not start \(.* exit status 1 \(ModuleNotFoundError: No module named 'nowhere'\)\)",
        ):
            run(executor, [task(0)])
    assert "No module named 'nowhere'" in (tmp_path / LOG).read_text()


def test_workers_end_with_their_executor(tmp_path: Path) -> None:
    with fake_executor(tmp_path, ("cpu", "cpu")) as executor:
        run(executor, [task(0, "works"), task(1, "works")])
        processes = [seat.worker.process for seat in executor._seats if seat.worker]
        assert len(processes) == 2
    assert all(process.end() == -signal.SIGKILL for process in processes)


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from faulty import SPEC, Source
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.protocols import Proposal, Task
from pnas_fast.space import Cell
with LocalExecutor(["cpu"], Path(sys.argv[3]), 60.0) as executor:
    executor.start(SPEC, Source())
    executor.submit(Task(0, Proposal(Cell.parse("0:identity+1:identity"), 1, note={"do": "tells"}), 0))
    while True:
        if any(type(event).__name__ == "Drained" for event in executor.events()):
            break
"""


@pytest.mark.skipif(not fork_server_module.AVAILABLE, reason="processes are forked on Linux alone")
def test_workers_find_what_the_program_finds_and_nothing_else(tmp_path: Path) -> None:
    """The program's own ``sys.path``, not the folder that somebody happened to be in; and all its cores."""
    here = Path(__file__).parent
    cwd, run_folder = tmp_path / "cwd", tmp_path / "run"
    cwd.mkdir()
    run_folder.mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    for name in ("queue", "torch", "json"):
        (cwd / f"{name}.py").write_text("raise ImportError('from the working folder')")
    command = [sys.executable, str(tmp_path / "program.py"), str(here.parent), str(here), str(run_folder)]
    environment = os.environ | {"OMP_PROC_BIND": "true"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((run_folder / "told").read_text())
    assert told["path"][:3] == [str(here), str(here.parent), str(tmp_path)]
    assert str(cwd) not in told["path"]
    assert set(told["cores"]) == os.sched_getaffinity(0)


def test_importing_executors_changes_nothing() -> None:
    script = textwrap.dedent("""
        import atexit, signal, sys, torch
        before = atexit._ncallbacks(), signal.getsignal(signal.SIGINT), torch.get_num_threads(), sys.path[:]
        import pnas_fast.executors.inline, pnas_fast.executors.local, pnas_fast.executors.worker
        after = atexit._ncallbacks(), signal.getsignal(signal.SIGINT), torch.get_num_threads(), sys.path[:]
        assert before == after, (before, after)
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_data_is_shared_as_it_is(tmp_path: Path) -> None:
    data = load("synthetic:8x6x3/4").subset(50)
    with shared_data(data, tmp_path) as place:
        again = read_data(place)
        for item in fields(data):
            mine, theirs = getattr(data, item.name), getattr(again, item.name)
            if isinstance(mine, torch.Tensor):
                assert torch.equal(mine, theirs)
                assert mine.stride() == theirs.stride()
            else:
                assert mine == theirs
    assert list(tmp_path.iterdir()) == []


def test_a_traced_child_is_the_same_child(tmp_path: Path) -> None:
    with real(tmp_path) as executor:
        found = run(executor, [task(0, seed=11, traced=True), task(1, seed=11)])
    assert same(found[0]) == same(found[1])
    trace = json.loads(trace_file(tmp_path, 0).read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"aten::convolution", "autograd::engine::evaluate_function: ConvolutionBackward0"} <= names
    assert not trace_file(tmp_path, 1).exists()


def test_messages_survive_the_wire() -> None:
    def wired(values: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(values))
        return found

    measurement = Measurement("done", {"accuracy": 0.1, "parameters": 3}, None, {"loss": (1.0, 0.25)}, "cpu")
    assert decode_measurement(wired(encode_measurement(measurement))) == measurement
    one = Task(3, Proposal(CELL, 5, 2, {"level": 1, "parent": "x"}), 2**62, traced=True)
    assert decode_task(wired(encode_task(one))) == one
    assert decode_task(wired(encode_task(replace(one, exclusive=True)))) == one
    setup = Setup(Spec("a:b", {"settings": {"x": [1]}}), "cuda:1", "data", "run", 3, 4)
    assert decode_setup(wired(encode_setup(setup))) == setup


def test_a_file_that_is_not_a_childs_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(WeightsError, match=r"best\.safetensors: not a safetensors file"):
        load_child(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_child(path)
