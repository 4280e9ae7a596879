"""A long training goes on on other cores, devices and copies of its data; a line says what differs."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pnas_fast.data import load
from pnas_fast.data.digest import digest
from pnas_fast.threads import cores, torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.checkpoint import Checkpoint, CheckpointError, Place, read_checkpoint, save_checkpoint
from pnas_fast.train.cli import Settled, parse
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group
from pnas_fast.train.machine import Machine
from pnas_fast.train.training import LongTraining
from test_train import OPTIONS, assert_same_result, checkpoints, finished, one_thread  # noqa: F401

DIFFER = "results may differ in the last bits"
DATA = load("synthetic:12x12x3/10")
SAME_DATA = "synthetic:012x12x3/10"  # another text for what it holds, as another folder would be
OTHER_DATA = "synthetic:12x12x3/9"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped in its second epoch."""
    folder, step = tmp_path_factory.mktemp("runs") / "stopped", LongTraining.step

    def interrupted(self: LongTraining, epoch: int, index: int) -> None:
        if (epoch, index) == (1, 4):
            signal.raise_signal(signal.SIGTERM)
        step(self, epoch, index)

    with pytest.MonkeyPatch.context() as patch, torch_threads(1):
        patch.setattr(LongTraining, "step", interrupted)
        assert main([*OPTIONS, "--out", str(folder)]) == 75
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def newest(folder: Path) -> Checkpoint:
    return read_checkpoint(checkpoints(folder)[-1])


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    kept = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in kept.items() if value is not None}))


def settled(line: str, identity: str = digest(DATA)) -> Settled:
    return parse([*OPTIONS, *line.split()], processes=1).settled(DATA, identity)


@pytest.mark.parametrize(
    "line",
    ["--threads 2", "--backend cpu", "--precision bf16", f"--data {SAME_DATA}", "--checkpoint-minutes 5"],
)
def test_what_it_runs_on_and_where_its_data_lie_do_not_say_what_run_it_is(line: str) -> None:
    one, other = settled(""), settled(line)
    assert one.config != other.config
    assert one.folder == other.folder
    assert one.asked.difference(other.asked) == []


def test_another_recipe_and_other_data_are_another_run() -> None:
    folders = {
        settled(line).folder for line in ("", "--epochs 4", "--cell 0:identity+1:identity", "--seed 1")
    }
    assert len(folders | {settled("", "another digest").folder}) == 5


def test_more_threads_are_said_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(folder), "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"continues on 2 threads (was 1): {DIFFER}" in lines
    machine = newest(folder).machine
    assert machine is not None
    assert machine.threads == 2
    assert main(["--out", str(folder)]) == 0  # as it is all done, nothing is continued
    assert DIFFER not in capsys.readouterr().out


def test_on_the_same_machine_nothing_is_said_and_the_bits_are_the_same(
    folder: Path,
    finished: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--out", str(folder)]) == 0
    assert DIFFER not in capsys.readouterr().out
    assert_same_result(folder, finished)


def test_threads_that_were_left_open_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "--threads 0"
    monkeypatch.setattr("pnas_fast.train.config.cores", lambda: 16)
    many = settled(line)
    monkeypatch.setattr("pnas_fast.train.config.cores", lambda: 8)
    few = settled(line)
    assert (many.config.threads, few.config.threads) == (16, 8)
    assert many.asked == few.asked
    assert many.folder == few.folder


def test_a_run_of_a_gpu_goes_on_on_the_cpu(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    last, gpu = newest(folder), Machine("cuda (NVIDIA H200)", "triton", "bf16", 1, 1, torch.__version__)
    save_checkpoint(folder, last.place, gpu, last.tensors)
    edit(folder, device="cuda", backend="triton", precision="bf16", threads=1)
    assert main(["--out", str(folder), "--device", "cuda"]) == 2
    assert "this machine has no CUDA GPU" in capsys.readouterr().err
    assert main(["--out", str(folder)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if DIFFER in line]
    assert line.startswith("continues on cpu (")
    for part in ("(was cuda (NVIDIA H200))", "cpu kernels (was triton)", "fp32 (was bf16)"):
        assert part in line


def test_more_threads_than_there_are_cores_are_a_wish(folder: Path) -> None:
    edit(folder, threads=1000)
    assert parse(["--out", str(folder)], processes=1).config.threads == cores()
    assert parse(["--out", str(folder), "--threads", "999"], processes=1).config.threads == 999


def test_loss_scaling_begins_anew_where_the_precision_changes_and_only_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*OPTIONS, "--precision", "fp16", "--out", str(tmp_path / "run")]
    half = parse(line, processes=1).config
    training = LongTraining(half, DATA.subset(256), Group())
    training.step(0, 0)
    machine = Machine.here(half, 1)
    save_checkpoint(tmp_path, replace(Place(), index=1), machine, training.tensors())
    checkpoint = newest(tmp_path)
    full = LongTraining(replace(half, precision="fp32"), DATA.subset(256), Group())
    full.restore(checkpoint)
    kept = {name: value for name, value in checkpoint.tensors.items() if "loss_scale" not in name}
    assert kept.keys() < checkpoint.tensors.keys()
    save_checkpoint(tmp_path, replace(Place(), index=2), replace(machine, precision="fp32"), kept)
    training.restore(newest(tmp_path))
    save_checkpoint(tmp_path, replace(Place(), index=3), machine, kept)
    with pytest.raises(CheckpointError, match=r"tensor optimizer\.loss_scale\.\w+ is missing"):
        training.restore(newest(tmp_path))


def test_data_may_move(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, data="cifar10:/job1/cifar10")
    assert main(["--out", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "/job1/cifar10" in errors
    assert "say with --data where the run's data lie now" in errors
    assert main(["--out", str(folder), "--data", SAME_DATA]) == 0
    assert TrainConfig.load(folder / "config.json").data == SAME_DATA
    assert DIFFER not in capsys.readouterr().out


def test_other_data_are_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "config.json").read_bytes()
    assert main(["--out", str(folder), "--data", OTHER_DATA]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"--data {OTHER_DATA} holds other images or labels than synthetic:12x12x3/10 did" in errors
    assert (folder / "config.json").read_bytes() == before


def test_a_run_of_an_earlier_version_knows_its_data_by_their_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, data_identity=None, image_size=None, skip_unreadable=None, cache=None)
    assert main(["--out", str(folder), "--data", SAME_DATA]) == 2
    assert f"--data synthetic:12x12x3/10 -> {SAME_DATA}" in capsys.readouterr().err
    assert main(["--out", str(folder)]) == 0
    assert TrainConfig.load(folder / "config.json").data_identity == digest(DATA)
