"""TensorBoard, MLflow and Weights & Biases: what a search told them, read back by their own readers."""

from __future__ import annotations

import importlib
import importlib.util
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from made_up import KilledError, driven, progressive
from pnas_fast.protocols import Event, Told, Trial
from pnas_fast.tracking import trackers
from pnas_fast.tracking.messages import Begin, Point
from pnas_fast.tracking.search import TrackedSearch
from pnas_fast.tracking.trackers import Kept, Tracking

pytestmark = [pytest.mark.usefixtures("few_steps"), pytest.mark.slow]

PARAMETERS: dict[str, Any] = {"blocks": 3, "operations": ["sep3x3", "identity"], "retrain": False}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "FINISH_SECONDS", dict.fromkeys(("done", "stopped", "failed"), 600.0))


def need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"pnas_fast[{name}] is not installed")


def module(name: str) -> Any:
    """A tool's own, which may warn of what it is made of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def draw(into: Path) -> list[Path]:
    into.mkdir(exist_ok=True)
    Image.new("RGBA", (30, 20), "red").save(into / "cell_1.png")
    return [into / "cell_1.png"]


def search(folder: Path, name: str, until: int = 1000) -> list[str]:
    """What is said in a made-up search, which is killed when the trial of a number was told."""
    said = list[str]()
    folder.mkdir(exist_ok=True)
    (folder / "best.safetensors").write_bytes(b"weights")
    with Tracking([name], folder, "abc", PARAMETERS, said.append, Kept(("best.*",), draw)) as tracking:
        listener = TrackedSearch(tracking)

        def emit(event: Event) -> None:
            listener.on(event)
            if isinstance(event, Told) and event.trial.number == until:
                raise KilledError

        driven(folder / "trials.sqlite", strategy=progressive(listener.on), emit=emit)
    return said


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def expected(tmp_path: Path) -> list[Trial]:
    return driven(tmp_path / "trials.sqlite")


def twice(run: Path, name: str) -> None:
    """A search that is killed and gone on with."""
    with pytest.raises(KilledError):
        search(run, name, until=24)
    assert search(run, name) == []


def events_of(run: Path) -> Any:
    found = module("tensorboard.backend.event_processing.event_accumulator").EventAccumulator(
        str(run / "tracking" / "tensorboard" / "abc"), {"tensors": 0, "scalars": 0, "images": 0}
    )
    return found.Reload()


def test_tensorboard(run: Path, expected: list[Trial]) -> None:
    need("tensorboard")
    twice(run, "tensorboard")
    events = events_of(run)
    accuracies = [(event.step, event.value) for event in events.Scalars("accuracy")]
    assert accuracies == [(t.number, pytest.approx(t.accuracy)) for t in expected if t.done]
    assert [event.step for event in events.Scalars("best_accuracy")] == list(range(33))
    assert [event.step for event in events.Scalars("level/rho_after")] == [20, 26, 32]
    cells = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("cell")]
    assert cells == [f"`{trial.cell}`" for trial in expected]
    (parameters,) = events.Tensors("parameters")
    assert b"| blocks | `3` |" in parameters.tensor_proto.string_val[0]
    (figure,) = events.Images("figures/cell_1")
    assert (figure.width, figure.height, figure.step) == (30, 20, 33)


def test_tensorboard_forgets_what_a_killed_process_had_not_said(tmp_path: Path) -> None:
    need("tensorboard")
    tool = module("pnas_fast.tracking.tensorboard").TensorBoard
    folder = tmp_path / "tracking" / "tensorboard"
    begin = Begin("run", "abc", "", str(folder), PARAMETERS, 0)
    first, second = tool(), tool()
    first.begin(begin)
    first.log([Point("trial", number, number, {"accuracy": 0.5}) for number in range(7)])
    second.begin(Begin("run", "abc", "abc", str(folder), PARAMETERS, 4))
    second.log([Point("trial", number, number, {"accuracy": 0.75}) for number in range(4, 9)])
    for one in (first, second):
        one._writer.close()
    scalars = [(event.step, event.value) for event in events_of(tmp_path).Scalars("accuracy")]
    assert scalars == [(step, 0.5 if step < 4 else 0.75) for step in range(9)]


def test_tensorboard_on_a_full_disk(
    run: Path, expected: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("tensorboard")
    monkeypatch.setitem(trackers.TOOLS, "tensorboard", "test_tracking_tools:FullDisk")
    assert search(run, "tensorboard") == ["--track tensorboard: File too large"]
    assert len(list((run / "tracking" / "tensorboard" / "abc").iterdir())) == 1


def test_tensorboard_where_it_cannot_write(run: Path, expected: list[Trial]) -> None:
    need("tensorboard")
    (run / "tracking").mkdir(parents=True)
    (run / "tracking" / "tensorboard").write_text("a file, where a folder belongs")
    assert search(run, "tensorboard") == ["--track tensorboard: Not a directory"]


class FullDisk:
    """TensorBoard on a disk that is full but for two kilobytes."""

    def __init__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._tool = module("pnas_fast.tracking.tensorboard").TensorBoard()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)


def test_mlflow(run: Path, expected: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    twice(run, "mlflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = module("mlflow").MlflowClient()
        experiment = client.get_experiment_by_name("cells").experiment_id
        (found,) = client.search_runs([experiment])
        history = client.get_metric_history(found.info.run_id, "accuracy")
        best = client.get_metric_history(found.info.run_id, "best_accuracy")
        levels = client.get_metric_history(found.info.run_id, "level/rho_after")
        files = {file.path for file in client.list_artifacts(found.info.run_id)}
        figures = {file.path for file in client.list_artifacts(found.info.run_id, "figures")}
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params == {"blocks": "3", "operations": "sep3x3,identity", "retrain": "False"}
    assert [(metric.step, metric.value) for metric in history] == [
        (trial.number, trial.accuracy) for trial in expected if trial.done
    ]
    assert [metric.step for metric in best] == list(range(33))
    assert [metric.step for metric in levels] == [20, 26, 32]
    favourite = max((trial for trial in expected if trial.done), key=lambda trial: trial.order)
    assert found.data.tags["best_cell"] == str(favourite.cell)
    assert files == {"best.safetensors", "figures"}
    assert figures == {"figures/cell_1.png"}


def records(path: Path) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, after W&B's header of seven bytes."""
    data, at, parts = path.read_bytes(), 7, b""
    block = 32768
    while at < len(data):
        if block - at % block < 7:  # no room for a record's header
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several parts
            yield parts
            parts = b""


def test_wandb_offline(
    run: Path, expected: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("wandb")
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "cells")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    twice(run, "wandb")
    made = module("wandb.proto.wandb_internal_pb2").Record
    logs = sorted((run / "tracking" / "wandb").glob("offline-run-*/*.wandb"))
    read = [made.FromString(record) for log in logs for record in records(log)]
    runs = [record.run for record in read if record.HasField("run")]
    assert len(logs) == len({log.parent for log in logs}) == 2
    assert {(one.project, one.display_name) for one in runs} == {("cells", "run")}
    assert len({one.run_id for one in runs}) == 1, "gone on with"
    assert {item.key: item.value_json for item in runs[0].config.update}["blocks"] == "3"
    rows = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in read
        if record.HasField("history")
    ]
    told = [(int(row["step"]), row["cell"].strip('"')) for row in rows if "cell" in row]
    assert told == [(trial.number, str(trial.cell)) for trial in expected]
    accuracies = [float(row["accuracy"]) for row in rows if "accuracy" in row]
    assert accuracies == [trial.accuracy for trial in expected if trial.done]
    assert [int(row["step"]) for row in rows if "level/rho_after" in row] == [20, 26, 32]
    artefacts = [record.request.log_artifact for record in read if record.HasField("request")]
    kept = [record.artifact for record in read if record.HasField("artifact")] or artefacts
    assert any("best.safetensors" in str(one) for one in kept)
