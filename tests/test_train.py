"""Long training: it learns, it goes on with the same bits however it ended, and it refuses what it must."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import load
from pnas_fast.engine import Stepper
from pnas_fast.engine.averaging import WeightAverage
from pnas_fast.network import CellNetwork, Logits
from pnas_fast.runs.weights import load_child, save_child
from pnas_fast.threads import torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.checkpoint import (
    CHECKPOINTS,
    Place,
    discard_unusable,
    latest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from pnas_fast.train.cli import parse
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group, GroupError, joined
from pnas_fast.train.history import Epoch, HistoryError, read_history, write_history
from pnas_fast.train.machine import Machine
from pnas_fast.train.network import design
from pnas_fast.train.training import LongTraining
from pnas_fast.zoo import MODELS

SEARCH = Path(__file__).with_name("data") / "run_of_schema_2"
CELL = "0:sep3x3+1:max_pool3x3,2:identity+1:avg_pool3x3"
OPTIONS = (
    f"--cell {CELL} --data synthetic:12x12x3/10 --train-images 256 --repeats 1 --filters 4 --batch 32 "
    "--epochs 3 --learning-rate 0.1 --ema 0.9 --cutout 4 --label-smoothing 0.1 --threads 1 --device cpu "
    "--checkpoint-minutes 0.001 --backend eager"
).split(" ")
MACHINE = Machine.here(TrainConfig(device="cpu", threads=1, precision="fp32").resolved(), 1)


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pnas_fast.train", *OPTIONS, "--out", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / CHECKPOINTS).glob("[0-9]*"))


def await_checkpoint(folder: Path, after: str = "") -> None:
    deadline = time.monotonic() + 120
    while not any(path.name > after for path in checkpoints(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_same_result(folder: Path, expected: Path) -> None:
    """Bit for bit: weights, optimiser, average, losses, the best weights and the history but for seconds."""
    got, wanted = read_checkpoint(checkpoints(folder)[-1]), read_checkpoint(checkpoints(expected)[-1])
    assert (got.place.epoch, got.place.index, got.place.best) == (3, 0, wanted.place.best)
    assert_equal(got.tensors, wanted.tensors)
    assert_equal(load_file(folder / "best.safetensors"), load_file(expected / "best.safetensors"))
    histories = [[replace(e, seconds=0.0) for e in read_history(path)] for path in (folder, expected)]
    assert histories[0] == histories[1]


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    assert [name for name in got if not torch.equal(got[name], expected[name])] == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*OPTIONS, "--out", str(folder)]) == 0
    return folder


def test_it_learns_and_keeps_the_best_weights_its_history_and_curves(finished: Path) -> None:
    history = read_history(finished)
    assert [record.epoch for record in history] == [1, 2, 3]
    assert history[-1].loss < 0.97 * history[0].loss
    assert max(record.judged for record in history) > 0.15  # of ten classes
    names = {path.name for path in finished.iterdir()} - {".lock"}
    assert names == {"best.safetensors", CHECKPOINTS, "config.json", "history.jsonl", "training.svg"}
    assert "<svg" in (finished / "training.svg").read_text()
    assert len(checkpoints(finished)) == 2
    network = load_child(finished / "best.safetensors")
    assert network.auxiliary is None
    best = read_checkpoint(checkpoints(finished)[-1]).tensors
    judged = [record.judged for record in history]
    if judged.index(max(judged)) == 2:
        assert torch.equal(network.stem.weight, best["average.stem.weight"])


def test_killed_at_any_moment_it_goes_on_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    folder, wait = tmp_path / "run", random.uniform(0, 0.3)
    process = start(folder)
    await_checkpoint(folder)
    time.sleep(wait)
    process.kill()
    process.communicate()
    print(f"killed {wait} s after the first checkpoint, at {checkpoints(folder)[-1].name}")
    assert main(["--out", str(folder)]) == 0
    assert_same_result(folder, finished)
    assert not list((folder / CHECKPOINTS).glob(".*"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)],
)
def test_ctrl_c_leaves_a_checkpoint_of_the_step_it_was_at(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    expected: int,
) -> None:
    step = LongTraining.step

    def interrupted(self: LongTraining, epoch: int, index: int) -> None:
        if (epoch, index) == (1, 4):
            signal.raise_signal(number)
        step(self, epoch, index)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(LongTraining, "step", interrupted)
        assert main([*OPTIONS, "--checkpoint-minutes", "60", "--out", str(folder)]) == expected
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"stopped; go on with: python -m pnas_fast.train --out {folder}"
    assert [path.stem for path in checkpoints(folder)] == ["000001-00000000", "000001-00000005"]
    assert main(["--out", str(folder)]) == 0
    assert_same_result(folder, finished)


Harm = Callable[[Path], None]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "said"), [(damage, "damaged, its contents are not"), (cut, "not a whole checkpoint")]
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], None],
    said: str,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    newest = checkpoints(folder)[-1]
    harm(newest)
    assert main(["--out", str(folder)]) == 0
    output = capsys.readouterr().out
    assert f"{newest}: {said}" in output.replace("\n", " ")
    assert "going back to the one before" in output
    assert_same_result(folder, finished)
    assert len(checkpoints(folder)) == 2


def test_without_a_whole_checkpoint_it_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in checkpoints(folder):
        cut(path)
    assert main(["--out", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"{folder / CHECKPOINTS}: no checkpoint is whole; remove the folder" in errors


def test_a_finished_training_is_not_repeated(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LongTraining, "step", lambda *_: pytest.fail("a step"))
    assert main([*OPTIONS, "--out", str(finished)]) == 0
    assert "best accuracy" in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    config = TrainConfig.load(folder / "config.json")
    replace(config, filters=5).save(folder / "config.json")
    assert main(["--out", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"{checkpoints(folder)[-1]}: the checkpoint is of another network: tensor average." in errors


def test_training_that_diverges_says_so_and_keeps_its_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    extreme = ["--learning-rate", "1000", "--clip", "0", "--epochs", "9", "--ema", "0", "--auxiliary", "0"]
    assert main([*OPTIONS, *extreme, "--out", str(folder)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert re.search(r"diverged: loss is \S+ in epoch \d; try a lower --learning-rate", errors)
    assert main(["--out", str(folder)]) == 1


BAD = [
    ("--cell 0:sep4x4+1:identity", "cell: block 0 (0:sep4x4+1:identity): unknown operation"),
    ("--cell pnasnet6", "allowed are a cell's text and pnasnet5_cifar nasnet_a_cifar"),
    ("--cell 0:sep3x3+1:identity --run runs/x", "--cell with --run: allowed is one of them"),
    ("--run {tmp}/nowhere", "nowhere: holds no trials.sqlite, expected the folder of a search"),
    ("--fused --backend eager", "--fused with --backend eager"),
    (
        "--data digits --auxiliary 0.4",
        "the auxiliary classifier would read a map of 4×4, allowed is 5×5 or more",
    ),
    ("--data digits --cutout 8", "cutout is 8 on images of 8×8, allowed is 0 to 7"),
    (f"--cutout {10**30}", "cutout is 1000000000000000000000000000000, allowed is 0 to 10000"),
    (f"--epochs {10**400}", "… (401 characters), allowed is 1 to 100000"),
    (f"--epochs {2**63}", "epochs is 9223372036854775808, allowed is 1 to 100000"),
    (f"--batch {10**30}", "allowed is 2 to 1048576"),
    (f"--learning-rate 1{'0' * 400}", "learning_rate is inf, allowed is 1e-09 to 1000.0"),
    ("--checkpoint-minutes 1e300", "checkpoint_minutes is 1e+300, allowed is 0.001 to 1000000.0"),
    ("--device cpu --backend triton", "backend 'triton' on cpu: allowed are auto cpu eager"),
    ("--data cifar10:{tmp}/nowhere", "nowhere: is no folder"),
    ("--auxiliary -1", "auxiliary is -1"),
    ("--cutout -1", "cutout is -1"),
    ("--ema 1", "ema is 1.0, allowed is 0 to 0.999999"),
    ("--threads -1", "threads is -1"),
    ("--checkpoint-minutes 0", "checkpoint_minutes is 0"),
    ("--time-limit 9", "unrecognized arguments: --time-limit 9"),
    ("--device tpu", "device is 'tpu'"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["--filters", "2", "--repeats", "1", *line.format(tmp=tmp_path).split()])
    except SystemExit as stop:
        status = int(stop.code or 0)
    output, errors = capsys.readouterr()
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert errors.startswith("python -m pnas_fast.train: error: ")
    assert output == ""
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_is_refused_by_its_difference(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(finished), "--epochs", "4", "--drop-path", "0"]) == 2
    assert "another configuration (--epochs 3 -> 4; --drop-path 0.4 -> 0.0)" in capsys.readouterr().err
    (tmp_path / "thesis.txt").touch()
    assert main([*OPTIONS, "--out", str(tmp_path)]) == 2
    assert "holds other files and no config.json" in capsys.readouterr().err
    shutil.copy(SEARCH / "config.json", tmp_path)
    assert main(["--out", str(tmp_path)]) == 2
    assert "not the configuration of a training" in capsys.readouterr().err


def test_processes_need_a_batch_to_share() -> None:
    assert TrainConfig(batch=6, device="cpu").resolved(3).batch == 6
    with pytest.raises(ConfigError, match="batch is 9, allowed are multiples of 2"):
        TrainConfig(batch=9, device="cpu").resolved(2)
    with pytest.raises(ConfigError, match=r"batch is 2, allowed are multiples of 2, .* from 4"):
        TrainConfig(batch=2, device="cpu").resolved(2)


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(GroupError, match="process 3 on a machine with 2 GPUs"), joined("cuda"):
        pass


def test_a_history_whose_last_line_is_torn_is_read_up_to_it(tmp_path: Path) -> None:
    epochs = [Epoch(number, 1.5, 0.25, None, 2.0, 64) for number in (1, 2)]
    write_history(tmp_path, epochs)
    path = tmp_path / "history.jsonl"
    path.write_text(path.read_text() + '{"epoch": 3, "lo')
    assert read_history(tmp_path) == epochs
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(HistoryError, match="line 1: not an epoch"):
        read_history(tmp_path)
    assert read_history(tmp_path / "nowhere") == []


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    hidden = ("time_limit", "share", "init_identity", "data_identity", "test_identity")
    for name in [*(item.name for item in fields(TrainConfig)), "out", "run", "download", "fused"]:
        assert (f"--{name.replace('_', '-')}" in output) == (name not in hidden)
    assert "at most half an image's side" in output


def test_the_average_of_weights_is_its_definition() -> None:
    torch.manual_seed(0)
    network, into = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    average = WeightAverage(network, into, 0.3)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(5):
        for tensor in network.state_dict().values():
            tensor.add_(torch.ones_like(tensor) if tensor.dtype == torch.int64 else torch.randn(tensor.shape))
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            if tensor.dtype == torch.int64:
                expected[name] = tensor.clone()
            else:
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in into.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert not any(parameter.requires_grad for parameter in into.parameters())


def test_the_auxiliary_loss_is_added_with_its_weight() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Logits:
            return Logits(self.main(x), self.side(x))

    torch.manual_seed(0)
    network, x, labels = Two(), torch.randn(5, 4), torch.randint(0, 3, (5,))
    settings = TrainConfig(label_smoothing=0.1, weight_decay=0.0, clip=0.0, learning_rate=0.5)
    logits = [x @ layer.weight.T + layer.bias for layer in (network.main, network.side)]
    losses = [nn.functional.cross_entropy(value, labels, label_smoothing=0.1) for value in logits]
    error = logits[1].softmax(1) - (0.9 * nn.functional.one_hot(labels, 3) + 0.1 / 3)
    gradient = 0.25 * error.mean(0)
    bias = network.side.bias.detach().clone()
    loss = Stepper(network, settings, auxiliary=0.25).step(x, labels, 0.0)
    torch.testing.assert_close(loss, (losses[0] + 0.25 * losses[1]).detach())
    # Nesterov's first step moves by (1 + 0.9) times the gradient.
    torch.testing.assert_close(network.side.bias.detach(), bias - 0.5 * 1.9 * gradient.detach())


@pytest.mark.parametrize("name", ["nasnet_a_cifar", "enas_cifar", "darts_v2_cifar"])
def test_published_networks_are_trained_at_their_size_and_kept_whole(name: str, tmp_path: Path) -> None:
    line = f"--cell {name} --data synthetic:12x12x3/10 --device cpu --backend eager"
    config = parse(line.split(), processes=1).config
    layout = MODELS[name].layout
    assert (config.repeats, config.filters) == (layout.repeats, layout.filters)
    small = replace(config, repeats=1, filters=2, batch=2)
    data = load("synthetic:12x12x3/10").subset(2)
    training = LongTraining(small, data, Group())
    training.step(0, 0)
    save_child(training.network, data, tmp_path / "best.safetensors")
    again = load_child(tmp_path / "best.safetensors")
    training.network.eval()
    again.eval()
    images = torch.randn(3, 3, 12, 12)
    assert torch.equal(training.network(images), again(images))


def test_the_default_is_pnasnet_5_at_its_published_size() -> None:
    genotype, layout = design(parse([], processes=1).config)
    network = CellNetwork(genotype, layout, 10, (3, 32, 32), auxiliary=True)
    assert network.parameters_count == 4_832_868  # docs/method.md, 4: with the auxiliary classifier


@pytest.mark.parametrize(
    "changes",
    [
        "--optimizer rmsprop --learning-rate 0.01",
        "--backend cpu",
        "--precision bf16",
        "--precision fp16",
    ],
)
def test_every_optimizer_backend_and_precision_goes_on_with_the_same_bits(
    tmp_path: Path, changes: str
) -> None:
    arguments = [*OPTIONS, *changes.split()]
    config = parse(arguments, processes=1).config
    data = load(config.data).subset(config.train_images)
    whole, first, second = (LongTraining(config, data, Group()) for _ in range(3))
    for index in range(4):
        whole.step(1, index)
    for index in range(2):
        first.step(1, index)
    save_checkpoint(tmp_path, Place(1, 2), Machine.here(config, 1), first.tensors())
    checkpoint = latest_checkpoint(tmp_path, pytest.fail)
    assert checkpoint is not None
    second.restore(checkpoint)
    for index in range(2, 4):
        second.step(1, index)
    assert_equal(second.tensors(), whole.tensors())


def test_damaged_checkpoints_are_not_kept_for_those_that_follow(tmp_path: Path) -> None:
    for index in (1, 2, 3):
        save_checkpoint(tmp_path, Place(0, index), MACHINE, {"x": torch.tensor(index)})
    older, newest = checkpoints(tmp_path)
    cut(newest)
    unfinished = newest.with_name(f".{newest.name}.99.tmp")
    unfinished.touch()
    checkpoint = latest_checkpoint(tmp_path, print)
    assert checkpoint is not None
    assert checkpoint.place == Place(0, 2)
    discard_unusable(tmp_path, checkpoint.place)
    assert checkpoints(tmp_path) == [older]
    assert not unfinished.exists()
