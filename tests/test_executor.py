"""Workers: what they return, and what happens when one is killed, hangs, breaks or cannot start."""

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from pnas_fast.executor import ExecutorError, Finished, Progress, Started, Task, WorkerPool, pool
from pnas_fast.executor.messages import decode_result, encode_result
from pnas_fast.training import ChildResult, TrainingSettings
from pnas_fast.weights import WeightsError, child_file, load_child

SETTINGS = TrainingSettings(filters=4, epochs=2, batch=32, train_images=128, device="cpu", time_limit=60.0)
CELL = "0:sep3x3+1:max_pool3x3"

# A stand-in for a worker, quick to start: it does to each task what the task's cell says.
FAKE = """
import json, os, sys, time
from pathlib import Path
setup = json.loads(sys.stdin.readline())
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    cell, position = task["cell"], task["position"]
    seen = Path(setup["folder"], f"seen{position}")
    again = seen.exists()
    seen.touch()
    if cell == "dies" or (cell == "dies once" and not again):
        sys.stdout.write('{"half a')
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    if cell == "hangs":
        time.sleep(1000)
    print(json.dumps({"position": position, "images": 10}), flush=True)
    result = {"status": "done", "accuracy": task["seed"] / 100}
    print(json.dumps({"position": position, "result": result}), flush=True)
"""


def fake_pool(folder: Path, workers: int = 2, program: str = FAKE, time_limit: float = 60.0) -> WorkerPool:
    settings = TrainingSettings(device="cpu", time_limit=time_limit)
    return WorkerPool(workers, settings, folder, (sys.executable, "-c", textwrap.dedent(program)))


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


def test_a_hanging_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0.5)
    with fake_pool(tmp_path, workers=1, time_limit=0.1) as workers:
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
    with WorkerPool(1, SETTINGS, tmp_path) as workers:
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


def test_a_real_worker_killed_at_work_is_replaced(tmp_path: Path) -> None:
    killed = False
    with WorkerPool(1, SETTINGS, tmp_path) as workers:
        for event in workers.run([Task(0, CELL, 1)]):
            if isinstance(event, Progress) and not killed:
                os.kill(workers._workers[0]._process.pid, signal.SIGKILL)
                killed = True
    assert killed
    assert isinstance(event, Finished)
    assert event.result.status == "done"


def test_a_worker_without_data_says_so(tmp_path: Path) -> None:
    settings = TrainingSettings(data=f"cifar10:{tmp_path / 'nowhere'}", device="cpu")
    with WorkerPool(1, settings, tmp_path) as workers, pytest.raises(ExecutorError, match="nowhere"):
        results(workers, [Task(0, CELL, 1)])


def test_workers_end_with_their_search(tmp_path: Path) -> None:
    with fake_pool(tmp_path) as workers:
        results(workers, [Task(0, "works", 1), Task(1, "works", 1)])
        processes = [worker._process for worker in workers._workers]
        assert processes
    assert all(process.poll() is not None for process in processes)


def test_results_survive_the_wire() -> None:
    result = ChildResult("done", 0.5, [1.0, 0.25], 1.5, 200.0, 300, 40, 50, None)
    assert decode_result(encode_result(result)) == result


def test_a_file_that_is_not_a_childs_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(WeightsError, match=r"best\.safetensors: not a safetensors file"):
        load_child(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_child(path)
