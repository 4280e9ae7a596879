"""Workers: what they return, and what happens when one is killed, hangs, breaks or cannot start."""

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest
import torch

from pnas_fast.data import load
from pnas_fast.engine import TrainingSettings, load_training_data
from pnas_fast.evaluation import ChildResult
from pnas_fast.evaluation.profiling import trace_file
from pnas_fast.executors import fork_server as fork_server_module
from pnas_fast.executors import pool, process
from pnas_fast.executors.fork_server import fork_server
from pnas_fast.executors.messages import Setup, Task, decode_result, decode_setup, encode_result, encode_setup
from pnas_fast.executors.pool import Drained, Event, ExecutorError, Finished, Progress, Started, WorkerPool
from pnas_fast.executors.process import WORKER, Process, Worker, start_program
from pnas_fast.executors.shared import read_data, shared_data
from pnas_fast.runs.weights import WeightsError, child_file, load_child
from pnas_fast.search.config import SearchConfig

SETTINGS = TrainingSettings(filters=4, epochs=2, batch=32, train_images=128, device="cpu", time_limit=60.0)
CELL = "0:sep3x3+1:max_pool3x3"

# A stand-in for a worker, quick to start: it does to each task what the task's cell says, and logs when.
FAKE = """
import json, os, sys, time
from pathlib import Path
setup = json.loads(sys.stdin.readline())
device = setup["device"]
def log(what):
    with Path(setup["folder"], "log").open("a") as file:
        file.write(json.dumps([device, os.getpid(), what]) + "\\n")
log("born")
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    cell, position = task["cell"], task["position"]
    seen = Path(setup["folder"], f"seen{position}")
    again = seen.exists()
    seen.touch()
    log(f"begins {cell}")
    if cell == "dies" or (cell == "dies once" and not again):
        sys.stdout.write('{"half a')
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    if cell == "hangs":
        time.sleep(1000)
    if cell == "slow":
        time.sleep(0.5)
    print(json.dumps({"position": position, "images": 10}), flush=True)
    result = {"status": "done", "accuracy": task["seed"] / 100}
    if cell == "big" or (cell == "big once" and not again):
        result = {"error": "out of memory: 9 GiB"}
    if cell == "breaks":
        result = {"error": "CUDA error"}
    log(f"ends {cell}")
    print(json.dumps({"position": position, "result": result, "unusable": cell == "breaks"}), flush=True)
"""


def fake_pool(
    folder: Path,
    devices: tuple[str, ...] = ("cpu", "cpu"),
    program: str = FAKE,
    time_limit: float = 60.0,
    probe_seconds: float | None = None,
) -> WorkerPool:
    settings = TrainingSettings(device="cpu", time_limit=time_limit)
    command = (sys.executable, "-c", textwrap.dedent(program))
    return WorkerPool(devices, settings, folder, folder, probe_seconds, partial(start_program, command))


@contextmanager
def real_pool(folder: Path, settings: TrainingSettings) -> Iterator[WorkerPool]:
    with (
        shared_data(load_training_data(settings), folder) as data,
        WorkerPool(["cpu"], settings, folder, data) as workers,
    ):
        yield workers


def logged(folder: Path) -> list[tuple[str, int, str]]:
    return [tuple(json.loads(line)) for line in (folder / "log").read_text().splitlines()]


def results(workers: WorkerPool, tasks: list[Task]) -> dict[int, ChildResult]:
    return {event.task.position: event.result for event in workers.run(tasks) if isinstance(event, Finished)}


def test_every_task_is_started_reports_and_finishes(tmp_path: Path) -> None:
    tasks = [Task(position, "works", position) for position in range(5)]
    with fake_pool(tmp_path) as workers:
        events = list(workers.run(tasks))
        again = results(workers, [Task(9, "works", 50)])
    for kind in (Started, Progress, Finished):
        assert sorted(event.task.position for event in events if isinstance(event, kind)) == [0, 1, 2, 3, 4]
    assert {e.task.position: e.result.accuracy for e in events if isinstance(e, Finished)} == {
        position: position / 100 for position in range(5)
    }
    assert again[9].accuracy == 0.5


def test_a_child_whose_worker_dies_is_tried_once_more(tmp_path: Path) -> None:
    with fake_pool(tmp_path) as workers:
        got = results(workers, [Task(0, "dies once", 1), Task(1, "dies", 2), Task(2, "works", 3)])
    assert got[0].status == "done"
    assert got[1].status == "failed"
    assert got[1].error == "the worker died 2 times (signal 9)"
    assert got[2].status == "done"


def test_a_child_without_memory_has_its_device_to_itself_once(tmp_path: Path) -> None:
    devices = ("cuda:0", "cuda:1") * 3
    cells = ["big once", "slow", "slow", "slow", "slow", "slow", "big", *["slow"] * 9]
    with fake_pool(tmp_path, devices) as workers:
        got = results(workers, [Task(position, cell, 1) for position, cell in enumerate(cells)])
    assert [got[position].status for position in range(len(cells))] == ["done"] * 6 + ["failed"] + [
        "done"
    ] * 9
    assert got[6].error == "out of memory: 9 GiB (2 times, the last time alone)"
    lines = logged(tmp_path)
    for cell in ("big once", "big"):
        tries = [index for index, line in enumerate(lines) if line[2] == f"begins {cell}"]
        assert len(tries) == 2
        first, second = (lines[index] for index in tries)
        assert (first[0], first[1]) != (second[0], second[1])  # a fresh process
        mine = [line for line in lines[: tries[1]] if line[0] == second[0]]
        begun = sum(what.startswith("begins") for _, _, what in mine)
        ended = sum(what.startswith("ends") for _, _, what in mine)
        assert begun == ended  # nobody else at work on that card
        after = [line[2] for line in lines[tries[1] + 1 :] if line[0] == second[0]]
        assert after[0] == f"ends {cell}"
    # The other card went on meanwhile.
    assert {line[0] for line in lines} == {"cuda:0", "cuda:1"}


def test_a_worker_that_has_ended_before_it_is_read_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = threading.Event()
    listen = Worker._listen

    def listen_late(worker: Worker, inbox: queue.Queue[tuple[Worker, object]]) -> None:
        killed.wait()
        listen(worker, inbox)

    monkeypatch.setattr(Worker, "_listen", listen_late)
    inbox: queue.Queue[tuple[Worker, object]] = queue.Queue()
    setup = Setup(TrainingSettings(device="cpu"), "cpu", "", "")
    worker = Worker(partial(start_program, (sys.executable, "-c", "")), setup, tmp_path / "log", inbox)
    worker.kill()
    killed.set()
    assert inbox.get(timeout=60) == (worker, None)


def test_a_process_that_cannot_go_on_is_replaced_and_its_child_has_failed(tmp_path: Path) -> None:
    with fake_pool(tmp_path, ("cuda:0",)) as workers:
        got = results(workers, [Task(0, "breaks", 1), Task(1, "works", 1)])
    assert (got[0].error, got[1].status) == ("CUDA error", "done")
    assert len({pid for _, pid, _ in logged(tmp_path)}) == 2


def test_what_is_only_tried_is_not_tried_again(tmp_path: Path) -> None:
    with fake_pool(tmp_path, probe_seconds=1.0) as workers:
        got = results(workers, [Task(0, "big once", 1), Task(1, "dies once", 1), Task(2, "works", 1)])
    assert got[0].error == "out of memory: 9 GiB"
    assert got[1].error == "the worker died 1 times (signal 9)"
    assert got[2].status == "done"


def test_workers_are_spread_over_devices_and_their_waiting_is_counted(tmp_path: Path) -> None:
    begun = time.monotonic()
    busy = 0.0
    events: list[Event] = []
    with fake_pool(tmp_path, ("cuda:0", "cuda:1")) as workers:
        for event in workers.run([Task(0, "slow", 1), Task(1, "works", 1)]):
            events.append(event)
            now = time.monotonic()
            busy += {Started: -now, Finished: now}.get(type(event), 0.0)
        passed = time.monotonic() - begun
    finished = {event.task.position: event for event in events if isinstance(event, Finished)}
    assert {event.device for event in finished.values()} == {"cuda:0", "cuda:1"}
    drained = events[-1]
    assert isinstance(drained, Drained)
    waited = drained.waited + sum(event.waited for event in finished.values())
    assert busy > 0.5
    assert waited == pytest.approx(2 * passed - busy, abs=0.1 + 0.1 * passed)


def test_a_hanging_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0.5)
    with fake_pool(tmp_path, devices=("cpu",), time_limit=0.1) as workers:
        got = results(workers, [Task(0, "hangs", 1), Task(1, "works", 2)])
    assert got[0].error == "hung: no result 0.5 s past the time limit of 0.1 s"
    assert got[1].status == "done"


def test_workers_that_cannot_start_are_an_error(tmp_path: Path) -> None:
    with (
        fake_pool(tmp_path, program="raise SystemExit(3)") as workers,
        pytest.raises(ExecutorError, match=r"do not start \(exit status 3\): see .*workers.log"),
    ):
        results(workers, [Task(0, "works", 1)])


def test_a_real_worker_trains_and_leaves_weights(tmp_path: Path) -> None:
    with real_pool(tmp_path, SETTINGS) as workers:
        events = list(workers.run([Task(3, CELL, 11), Task(4, CELL, 11)]))
    images = [event.images for event in events if isinstance(event, Progress)]
    assert images == [128, 256] * 2
    first, second = (event.result for event in events if isinstance(event, Finished))
    assert first.error is None
    assert (first.accuracy, first.epoch_losses) == (second.accuracy, second.epoch_losses)
    network = load_child(child_file(tmp_path, 3))
    assert network.parameters_count == first.parameters
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert not list(tmp_path.glob("**/*.tmp"))


def test_where_nothing_is_forked_a_worker_imports_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_pool(tmp_path, SETTINGS) as workers:
        forked = results(workers, [Task(0, CELL, 11)])
    monkeypatch.setattr(fork_server_module, "AVAILABLE", False)
    with real_pool(tmp_path, SETTINGS) as workers:
        alone = results(workers, [Task(0, CELL, 11)])
        assert isinstance(workers._seats[0].worker.process, subprocess.Popen)
    assert alone[0].error is None
    assert (alone[0].accuracy, alone[0].epoch_losses) == (forked[0].accuracy, forked[0].epoch_losses)


def test_workers_of_a_gpu_are_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(process, "start_program", lambda command, *_: commands.append(command))
    process.start_worker(BytesIO(), "cuda:1")
    assert commands == [[sys.executable, "-m", WORKER]]


def test_a_real_worker_killed_at_work_is_replaced(tmp_path: Path) -> None:
    killed = False
    events: list[Event] = []
    with real_pool(tmp_path, SETTINGS) as workers:
        for event in workers.run([Task(0, CELL, 1)]):
            events.append(event)
            if isinstance(event, Progress) and not killed:
                os.kill(workers._seats[0].worker.process.pid, signal.SIGKILL)
                killed = True
    assert killed
    assert isinstance(finished := events[-2], Finished)
    assert finished.result.status == "done"


def test_workers_whose_server_is_killed_are_replaced(tmp_path: Path) -> None:
    before = fork_server(WORKER)
    events: list[Event] = []
    with real_pool(tmp_path, SETTINGS) as workers:
        for event in workers.run([Task(0, CELL, 1)]):
            events.append(event)
            if isinstance(event, Progress) and before.alive:
                os.kill(before.pid, signal.SIGKILL)
                before.close()
    assert fork_server(WORKER) is not before
    assert isinstance(finished := events[-2], Finished)
    assert finished.result.status == "done"


def test_workers_that_cannot_be_forked_are_an_error(tmp_path: Path) -> None:
    def start(errors: IO[bytes], device: str) -> Process:
        return fork_server("nowhere.at_all").fork(errors)

    with (
        WorkerPool(["cpu"], SETTINGS, tmp_path, tmp_path, start=start) as workers,
        pytest.raises(ExecutorError, match=r"do not start \(.* exit status 1\): see .*workers.log"),
    ):
        results(workers, [Task(0, CELL, 1)])


def test_a_worker_without_data_says_so(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with (
        WorkerPool(["cpu"], SETTINGS, tmp_path, nowhere) as workers,
        pytest.raises(ExecutorError, match="nowhere"),
    ):
        results(workers, [Task(0, CELL, 1)])


def test_workers_end_with_their_search(tmp_path: Path) -> None:
    with fake_pool(tmp_path) as workers:
        results(workers, [Task(0, "works", 1), Task(1, "works", 1)])
        processes = [seat.worker.process for seat in workers._seats if seat.worker]
        assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)


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
    with real_pool(tmp_path, SETTINGS) as workers:
        got = results(workers, [Task(0, CELL, 11, profile=True), Task(1, CELL, 11)])
    assert (got[0].accuracy, got[0].epoch_losses) == (got[1].accuracy, got[1].epoch_losses)
    trace = json.loads(trace_file(tmp_path, 0).read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"aten::convolution", "autograd::engine::evaluate_function: ConvolutionBackward0"} <= names
    assert not trace_file(tmp_path, 1).exists()


def test_results_survive_the_wire() -> None:
    result = ChildResult("done", 0.5, [1.0, 0.25], 1.5, 0.25, 200.0, 300, 40, 50, 60, None)
    assert decode_result(json.loads(json.dumps(encode_result(result)))) == result
    setup = Setup(SearchConfig(beam=3, filters=5), "cuda:1", "data", "run", 0.5)
    again = decode_setup(json.loads(json.dumps(encode_setup(setup))))
    assert again == replace(setup, settings=TrainingSettings(filters=5))


def test_a_file_that_is_not_a_childs_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(WeightsError, match=r"best\.safetensors: not a safetensors file"):
        load_child(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_child(path)
