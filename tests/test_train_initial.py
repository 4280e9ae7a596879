"""A training that begins with the weights of another: what it takes, what it refuses, what it remembers."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pnas_fast.data import load
from pnas_fast.data.digest import digest
from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.runs.weights import WeightsError, load_child, save_child
from pnas_fast.train.__main__ import main
from pnas_fast.train.checkpoint import CHECKPOINTS, read_checkpoint
from pnas_fast.train.cli import parse
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group
from pnas_fast.train.initial import INITIAL, begin_with
from pnas_fast.train.training import LongTraining
from pnas_fast.zoo import MODELS
from test_train import CELL, assert_equal, assert_same_result, one_thread  # noqa: F401

OLD_DATA = load("synthetic:12x12x3/10")
DATA = "synthetic:14x13x1/4"
MORE = (
    f"--data {DATA} --train-images 128 --batch 32 --epochs 3 --learning-rate 0.1 --cutout 4 --threads 1 "
    "--device cpu --checkpoint-minutes 0.001 --backend eager"
).split(" ")


def save(path: Path, cell: str = CELL, reduction: str | None = None, **layout: Any) -> Path:
    """A file of weights that some training left."""
    torch.manual_seed(7)
    settings = Layout(**{"repeats": 1, "filters": 4} | layout)
    network = CellNetwork(Genotype.parse(cell, reduction), settings, 10, (3, 12, 12))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.1)  # running statistics too
        elif name.endswith("num_batches_tracked"):
            value.fill_(11)
    path.parent.mkdir(exist_ok=True)
    save_child(network, OLD_DATA, path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(tmp_path / "old" / "best.safetensors")


def began(init: Path, folder: Path, *line: str) -> tuple[LongTraining, str]:
    """A training at its beginning, and what it said."""
    folder.mkdir()
    config = parse([*MORE, "--init", str(init), *line], processes=1).config
    training = LongTraining(config, load(config.data).subset(64), Group())
    return training, begin_with(training, config, folder, leads=True)


def refusal(capsys: pytest.CaptureFixture[str], *line: object) -> str:
    assert main(list(map(str, line))) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1, errors
    assert errors.startswith("python -m pnas_fast.train: error: ")
    return errors.removeprefix("python -m pnas_fast.train: error: ").rstrip()


FRESH = {
    "synthetic:12x12x3/10": ("auxiliary",),
    "synthetic:24x12x3/10": ("auxiliary",),
    "synthetic:12x12x3/3": ("classifier", "auxiliary"),
    "synthetic:15x13x1/100": ("stem.weight", "classifier", "auxiliary"),
}


@pytest.mark.parametrize("average", ["0", "0.9"])
@pytest.mark.parametrize("data", FRESH)
def test_all_that_fits_is_taken_and_the_rest_is_as_random_as_without(
    weights: Path, tmp_path: Path, data: str, average: str
) -> None:
    training, said = began(weights, tmp_path / "run", "--data", data, "--ema", average)
    random = LongTraining(training._config, load(data).subset(64), Group())
    kept, expected = load_file(weights), random.network.state_dict()
    expected |= {name: value for name, value in kept.items() if not name.startswith(FRESH[data])}
    assert_equal(training.network.state_dict(), expected)
    assert_equal(training.judged.state_dict(), expected)
    fresh = [name for name in expected if name.startswith(FRESH[data])]
    assert f"{len(expected) - len(fresh)} of {len(expected)} tensors; fresh: " in said
    titles = {"stem.weight": "the stem (1)", "classifier": "the classifier (2)"}
    for part in FRESH[data]:
        assert titles.get(part, "the auxiliary head (14)") in said
    assert ("the classifier" in said) == ("classifier" in FRESH[data])


def test_nothing_is_fresh_where_all_fits(weights: Path, tmp_path: Path) -> None:
    _, said = began(weights, tmp_path / "run", "--data", "synthetic:12x12x3/10", "--auxiliary", "0")
    assert said.endswith("tensors; fresh: none")


def test_the_cell_n_and_f_are_those_of_the_file(weights: Path, tmp_path: Path) -> None:
    for init in (weights, weights.parent):
        config = parse(["--init", str(init), "--device", "cpu"], processes=1).config
        assert (config.cell, config.repeats, config.filters) == (CELL, 1, 4)
    config = parse(["--init", str(weights), "--cell", CELL], processes=1).config
    assert (config.cell, config.repeats, config.filters) == (CELL, 1, 4)
    model = MODELS["darts_v2_cifar"]
    cells = str(model.genotype.normal), str(model.genotype.reduction)
    published = save(
        tmp_path / "darts.safetensors",
        *cells,
        repeats=2,
        extra_reductions=True,
        always_align=True,
        final_rectify=False,
    )
    config = parse(["--init", str(published)], processes=1).config
    assert (config.cell, config.repeats, config.filters) == ("darts_v2_cifar", 2, 4)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("--cell 0:sep3x3+1:identity", "0:sep3x3+1:identity with N 1, F 4"),
        ("--repeats 2", f"{CELL} with N 2, F 4"),
        ("--filters 5", f"{CELL} with N 1, F 5"),
        ("--cell nasnet_a_cifar", "nasnet_a_cifar with N 1, F 4"),
    ],
)
def test_another_network_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, asked: str
) -> None:
    said = refusal(capsys, *MORE, "--init", weights, *line.split(), "--out", tmp_path / "run")
    assert f"--init {weights}: its network is {CELL} with N 1, F 4, asked for is {asked}, allowed is" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "layout", [{"stem": "imagenet"}, {"dropout": 0.5}, {"extra_reductions": True}, {"norm_momentum": 0.5}]
)
def test_a_network_that_no_training_builds_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: dict[str, Any]
) -> None:
    path = save(tmp_path / "w.safetensors", **layout)
    assert f"--init {path}: its network has stem " in refusal(capsys, *MORE, "--init", path)


def test_files_that_are_no_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        refusal(capsys, "--init", tmp_path / "no")
        == f"{tmp_path}/no: cannot be read (No such file or directory)"
    )
    assert f"{tmp_path}/best.safetensors: cannot be read" in refusal(capsys, "--init", tmp_path)
    text = tmp_path / "a.txt"
    text.write_text("text")
    assert f"{text}: not a safetensors file" in refusal(capsys, "--init", text)
    path = save(tmp_path / "w.safetensors")
    network = load_child(path)
    with torch.no_grad():
        network.cells[1].get_parameter(next(name for name, _ in network.cells[1].named_parameters())).fill_(
            torch.nan
        )
    save_child(network, OLD_DATA, path)
    assert "has values that are no finite numbers" in refusal(capsys, "--init", path)


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, index: int) -> None:
    step = LongTraining.step

    def interrupted(self: LongTraining, *at: int) -> None:
        if at == (epoch, index):
            signal.raise_signal(signal.SIGTERM)
        step(self, *at)

    monkeypatch.setattr(LongTraining, "step", interrupted)


@pytest.mark.slow
def test_stopped_it_goes_on_with_the_same_bits_and_without_the_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    line = [*MORE, "--init", str(weights), "--out"]
    assert main([*line, str(whole)]) == 0
    assert f"begins with the weights of {weights}: " in capsys.readouterr().out
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2)
        assert main([*line, str(folder)]) == 75
    capsys.readouterr()
    weights.unlink()
    (folder / INITIAL).unlink()
    half = shutil.copytree(folder, tmp_path / "half")
    assert main(["--out", str(folder)]) == 0
    assert main([*line, str(half)]) == 0
    assert "begins with" not in capsys.readouterr().out
    for each in (folder, half):
        assert_same_result(each, whole)
    bare = tmp_path / "bare"
    assert main([*MORE, "--cell", CELL, "--repeats", "1", "--filters", "4", "--out", str(bare)]) == 0
    tensors = [read_checkpoint(max((each / CHECKPOINTS).iterdir())).tensors for each in (whole, bare)]
    assert not torch.equal(*(found["network.stem.weight"] for found in tensors))


@pytest.mark.slow
def test_before_the_first_checkpoint_only_its_own_weights_will_do(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert main([*MORE, "--init", str(weights), "--out", str(whole)]) == 0
    capsys.readouterr()
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    content = weights.read_bytes()
    weights.unlink()
    assert refusal(capsys, "--out", folder) == f"{weights}: cannot be read (No such file or directory)"
    save(weights, filters=4)
    assert weights.read_bytes() == content  # it is seeded
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"--init {weights}: its SHA-256 is " in refusal(capsys, "--out", folder)
    assert not (folder / INITIAL).exists()
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(content)
    assert main(["--out", str(folder), "--init", str(moved)]) == 0
    assert_same_result(folder, whole)
    (folder / INITIAL).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for path in (folder / CHECKPOINTS).iterdir():
        path.unlink()
    (folder / "history.jsonl").unlink()
    assert f"{folder / INITIAL}: its SHA-256 is " in refusal(capsys, "--out", folder)


def test_the_weights_are_part_of_what_a_run_is(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load(DATA)

    def folder(*line: str) -> Path:
        return parse([*MORE, *line], processes=1).settled(data, digest(data)).folder

    size = ("--cell", CELL, "--repeats", "1", "--filters", "4")
    copy, other = tmp_path / "copy.safetensors", save(tmp_path / "other.safetensors")
    shutil.copy(weights, copy)
    network = load_child(other)
    with torch.no_grad():
        network.classifier.weight.mul_(2)
    save_child(network, OLD_DATA, other)
    folders = [folder(*size), *(folder("--init", str(path)) for path in (weights, copy, other))]
    assert folders[1] == folders[2]
    assert len(set(folders)) == 3
    assert folders[0] == folder(*size, "--init", "")
    without = {name: value for name, value in TrainConfig().identity().items() if name != "init"}
    assert TrainConfig.from_values(TrainConfig().values()).identity() == without | {"init": ""}

    run = tmp_path / "run"
    assert main([*MORE, "--epochs", "1", "--init", str(weights), "--out", str(run)]) == 0
    capsys.readouterr()
    said = refusal(capsys, "--out", run, "--init", other)
    assert "the run there has another configuration (--init weights " in said
    assert "… -> weights " in said
    assert "… -> none" in refusal(capsys, "--out", run, "--init", "")


@pytest.mark.slow
@pytest.mark.parametrize("on", ["train", "all"])
def test_every_seed_begins_with_them_and_a_seed_to_come_needs_no_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    line = [*MORE, "--epochs", "1", "--on", on, "--seeds", "2", "--init", str(weights), "--out"]
    assert main([*line, str(whole)]) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 0, 1)
        assert main([*line, str(folder)]) == 75
    assert not (folder / "seed-1").exists()
    weights.unlink()
    assert main(["--out", str(folder)]) == 0
    for seed in ("seed-0", "seed-1"):
        assert_equal(*(load_file(each / seed / "best.safetensors") for each in (folder, whole)))
        assert not (folder / seed / INITIAL).exists()
    assert json.loads((folder / "seeds.json").read_text())["seeds"] == [0, 1]


def test_a_process_that_does_not_lead_writes_nothing(weights: Path, tmp_path: Path) -> None:
    config = parse([*MORE, "--init", str(weights)], processes=1).config
    training = LongTraining(config, load(DATA).subset(64), Group())
    begin_with(training, config, tmp_path, leads=False)
    assert not (tmp_path / INITIAL).exists()
    weights.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        begin_with(training, config, tmp_path, leads=False)
