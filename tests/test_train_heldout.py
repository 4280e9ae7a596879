"""Test images: measured once, at the end, by weights that they did not choose; and several seeds' means."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import load
from pnas_fast.data.dataset import statistics
from pnas_fast.engine import evaluate
from pnas_fast.export.exporting import export_model
from pnas_fast.export.model_file import Form
from pnas_fast.export.subject import run_subject
from pnas_fast.runs.config import short_digest
from pnas_fast.runs.weights import load_child
from pnas_fast.threads import torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.checkpoint import read_checkpoint
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.heldout import TEST, HeldOut, read_tested
from pnas_fast.train.history import HistoryError, read_history
from pnas_fast.train.seeds import Outcome, seeds_text, write_seeds
from pnas_fast.train.training import LongTraining
from test_train import checkpoints

OPTIONS = shlex.split(
    "--cell 0:sep3x3+1:max_pool3x3 --repeats 1 --filters 2 --batch 32 --epochs 2 "
    "--learning-rate 0.05 --auxiliary 0 --threads 1 --device cpu --backend eager"
)


def write_data(path: Path, *, shift: int = 0, tests: bool = True) -> str:
    """Images whose class is their brightness, more or less, in a file; its name as data.

    The labels of the test images are moved on by ``shift`` classes.
    """
    random = np.random.default_rng(4)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 160), ("val", 40), ("test", 50)):
        labels = np.arange(count) % 3
        levels = 60 * labels[:, None, None] + random.integers(0, 90, (count, 8, 8))
        arrays[f"{part}_images"] = levels.astype(np.uint8)
        arrays[f"{part}_labels"] = (labels + shift * (part == "test")) % 3
    if not tests:
        del arrays["test_images"], arrays["test_labels"]
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data") / "made.npz")


def trained(folder: Path, data: str, *more: str) -> Path:
    assert main([*OPTIONS, "--data", data, "--out", str(folder), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    with torch_threads(1):
        return trained(tmp_path_factory.mktemp("runs") / "train", data)


@pytest.fixture(scope="module")
def on_all(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    with torch_threads(1):
        return trained(tmp_path_factory.mktemp("runs") / "all", data, "--on", "all", "--ema", "0.5")


def test_a_joined_set_has_every_image_once_with_its_label(data: str) -> None:
    whole = load(data)
    joined, other = whole.joined(1), whole.joined(2)
    before = torch.cat([whole.train_images, whole.validation_images])
    labels = torch.cat([whole.train_labels, whole.validation_labels])

    def rows(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[bytes, int]]:
        return [(i.numpy().tobytes(), int(n)) for i, n in zip(images, labels, strict=True)]

    found = rows(joined.train_images, joined.train_labels)
    others = rows(other.train_images, other.train_labels)
    assert sorted(found) == sorted(rows(before, labels)) == sorted(others)
    assert found != others
    assert found == rows(whole.joined(1).train_images, whole.joined(1).train_labels)
    assert joined.train_images.is_contiguous(memory_format=torch.channels_last)
    expected, std = statistics(before.permute(0, 2, 3, 1).numpy())
    assert torch.equal(joined.mean, expected)
    assert torch.equal(joined.std, std)
    assert joined.test_images is whole.test_images
    assert torch.equal(joined.validation_images, whole.validation_images)


def test_the_interval_is_wilson_s() -> None:
    low, high = HeldOut(81, 263, None).interval
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I, method 3
    for images in (1, 10, 997):
        assert HeldOut(0, images, 1.0).interval[0] == pytest.approx(0, abs=1e-12)
        assert HeldOut(images, images, 1.0).interval[1] == pytest.approx(1)
        assert all(0 <= end <= 1 for right in (0, images) for end in HeldOut(right, images, 1.0).interval)


def test_the_kept_weights_are_tested_and_the_result_is_read_again(
    choosing: Path, data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_tested(choosing)
    expected = evaluate(load_child(choosing / "best.safetensors"), load(data).tested())
    assert known is not None
    assert (known.correct, known.images) == (expected.correct, 50)
    assert known.loss == pytest.approx(expected.loss)
    assert known.recall == expected.recalls
    assert known.balanced_accuracy == pytest.approx(sum(expected.recalls) / 3)  # type: ignore[arg-type]
    written = json.loads((choosing / TEST).read_text())
    assert written["accuracy"] == known.accuracy
    assert written["balanced_accuracy"] == known.balanced_accuracy
    assert (written["recall"], written["classes"]) == (list(expected.recalls), ["0", "1", "2"])
    assert tuple(written["interval"]) == known.interval
    monkeypatch.setattr("pnas_fast.train.heldout.evaluate", lambda *_: pytest.fail("measured again"))
    assert main(["--out", str(choosing)]) == 0
    output = capsys.readouterr().out
    assert f"test error {100 * (1 - known.accuracy):.2f} % on 50 test images (95 %: " in output
    assert "best accuracy" in output
    assert output.count("recall of classes, the lowest: ") == 2


def test_epochs_have_balanced_accuracy_and_the_best_so_far_recalls(choosing: Path, data: str) -> None:
    history, best = read_history(choosing), -1.0
    for epoch in history:
        assert epoch.balanced_accuracy is not None
        assert epoch.judged is not None
        assert (epoch.recall is not None) == (epoch.judged > best)
        best = max(best, epoch.judged)
    kept = next(epoch for epoch in history if epoch.judged == best)
    found = evaluate(load_child(choosing / "best.safetensors"), load(data))
    assert (kept.recall, kept.balanced_accuracy) == (found.recalls, found.balanced_accuracy)


def test_a_result_of_before_there_were_recalls_is_read(tmp_path: Path) -> None:
    (tmp_path / TEST).write_text('{"correct": 1, "images": 2, "loss": 1.0}')
    known = read_tested(tmp_path)
    assert known == HeldOut(1, 2, 1.0)
    assert known.balanced_accuracy is None
    assert "balanced" not in str(known)


def test_on_all_images_the_last_weights_are_kept_and_nothing_is_judged(
    on_all: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    history = read_history(on_all, judged=False)
    assert [(e.accuracy, e.average_accuracy, e.images) for e in history] == [(None, None, 192)] * 2
    last = read_checkpoint(checkpoints(on_all)[-1])
    assert (last.place.epoch, last.place.best) == (2, -1.0)
    network = load_child(on_all / "best.safetensors")
    assert torch.equal(network.state_dict()["stem.weight"], last.tensors["average.stem.weight"])
    expected = evaluate(network, load(data).joined(0).tested())
    known = read_tested(on_all)
    assert known is not None
    assert known.correct == expected.correct
    assert "<svg" in (on_all / "training.svg").read_text()
    assert main(["--out", str(on_all)]) == 0
    output = capsys.readouterr().out
    assert "validation accuracy" not in output.lower()
    assert "best accuracy" not in output
    assert "trained on training and validation images; averaged weights of the last epoch" in output


def test_an_export_normalises_as_training_did_and_claims_no_accuracy(
    on_all: Path, choosing: Path, data: str
) -> None:
    subject = run_subject(on_all)
    mean = [255 * level for level in subject.images.mean]
    assert mean == pytest.approx(load(data).joined(0).mean.tolist())
    assert mean != pytest.approx(load(data).mean.tolist())
    exported = export_model(subject, on_all.parent / "all.onnx", Form("fp32", "uint8", None))
    assert exported.real is not None
    assert exported.accuracy is None
    assert run_subject(choosing).judged


def test_what_is_trained_on_is_not_changed_under_way(
    on_all: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(on_all), "--on", "train"]) == 2
    assert "(--on all -> train)" in capsys.readouterr().err


@pytest.mark.slow
def test_stopped_on_all_images_it_goes_on_with_the_same_bits(
    on_all: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, step = tmp_path / "run", LongTraining.step

    def interrupted(self: LongTraining, epoch: int, index: int) -> None:
        if (epoch, index) == (1, 2):
            signal.raise_signal(signal.SIGINT)
        step(self, epoch, index)

    line = [*OPTIONS, "--data", data, "--on", "all", "--ema", "0.5", "--out", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr(LongTraining, "step", interrupted)
        assert main(line) == 130
    assert {path.name for path in folder.iterdir()}.isdisjoint({"best.safetensors", TEST})
    assert main(line) == 0
    assert (folder / "best.safetensors").read_bytes() == (on_all / "best.safetensors").read_bytes()
    assert read_tested(folder) == read_tested(on_all)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["train", "all"])
def test_permuted_test_labels_change_no_weight_and_no_choice(tmp_path: Path, on: str) -> None:
    right, wrong = write_data(tmp_path / "a.npz"), write_data(tmp_path / "b.npz", shift=1)
    one, other = (trained(tmp_path / name[-5], name, "--on", on) for name in (right, wrong))
    assert (one / "best.safetensors").read_bytes() == (other / "best.safetensors").read_bytes()
    histories = [[replace(e, seconds=0.0) for e in read_history(folder)] for folder in (one, other)]
    assert histories[0] == histories[1]
    assert read_tested(one) != read_tested(other)


def test_other_test_images_are_refused(
    choosing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (choosing / "config.json").read_bytes()
    other = write_data(tmp_path / "other.npz", shift=1)
    assert main(["--out", str(choosing), "--data", other]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"--data {other} holds other test images or test labels than npz:" in errors
    assert (choosing / "config.json").read_bytes() == before


def test_test_images_may_come_later(
    choosing: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(tmp_path / "run", write_data(tmp_path / "untested.npz", tests=False))
    assert not (folder / TEST).exists()
    assert "test error" not in capsys.readouterr().out
    assert main(["--out", str(folder), "--data", data]) == 0
    assert read_tested(folder) == read_tested(choosing)
    assert main(["--out", str(folder), "--data", f"npz:{tmp_path / 'untested.npz'}"]) == 0
    output = capsys.readouterr().out
    assert output.count("test error ") == 2
    assert "no test images" not in output
    (folder / TEST).unlink()
    assert main(["--out", str(folder)]) == 0
    assert "has no test images any more: there will be no test error" in capsys.readouterr().out


def test_killed_before_it_was_tested_it_is_tested_by_the_same_command(
    on_all: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(on_all, folder)
    (folder / TEST).unlink()
    monkeypatch.setattr(LongTraining, "step", lambda *_: pytest.fail("a step"))
    assert main(["--out", str(folder)]) == 0
    assert read_tested(folder) == read_tested(on_all)


def test_lost_last_weights_are_made_again_from_the_last_checkpoint(
    on_all: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(on_all, folder)
    (folder / "best.safetensors").unlink()
    (folder / TEST).write_text('{"correct": 1, "images": 50, "loss": 9.0}')  # of whatever weights are gone
    assert main(["--out", str(folder)]) == 0
    assert "made again from the checkpoint after epoch 2" in capsys.readouterr().out
    assert (folder / "best.safetensors").read_bytes() == (on_all / "best.safetensors").read_bytes()
    assert read_tested(folder) == read_tested(on_all)
    (folder / "best.safetensors").unlink()
    checkpoints(folder)[-1].unlink()
    checkpoints(folder)[-1].unlink()
    assert main(["--out", str(folder)]) == 2
    assert "no checkpoint holds the last weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"correct": 3, "images": 2, "loss": 1.0}', '{"correct": 0, "images": 0}']
)
def test_a_damaged_result_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / TEST).write_text(content)
    with pytest.raises(HistoryError, match=r"test\.json: not the test result of a training"):
        read_tested(tmp_path)


def test_a_history_of_the_other_kind_is_refused(on_all: Path, choosing: Path) -> None:
    with pytest.raises(HistoryError, match="line 1: accuracy is None, allowed is a number"):
        read_history(on_all, judged=True)
    with pytest.raises(HistoryError, match="allowed is none: validation images were trained on"):
        read_history(choosing, judged=False)


def test_the_folder_of_a_training_is_named_as_before_there_were_such_options() -> None:
    config = TrainConfig()
    new = ("on", "seeds", "class_weights", "init")
    old = {name: value for name, value in config.identity().items() if name not in new}
    assert old.keys() == config.identity().keys() - set(new)
    changes: list[dict[str, Any]] = [
        {},
        {"on": "all"},
        {"seeds": 2},
        {"class_weights": "balanced"},
        {"cutout": 0},
        {"init_identity": "0" * 64},
    ]
    names = {replace(config, **change).digest("x") for change in changes}
    assert len(names) == 6
    assert config.digest("x") == short_digest(old, "x")


def test_seeds_beyond_the_last_are_refused() -> None:
    assert [each.seed for each in TrainConfig(seeds=3, seed=7).each_seed()] == [7, 8, 9]
    with pytest.raises(ConfigError, match="seed is 2147483648"):
        TrainConfig(seeds=2, seed=2**31 - 1)


def test_means_and_deviations_of_seeds(tmp_path: Path) -> None:
    found = [Outcome(4, 0.5, HeldOut(40, 50, 0.3)), Outcome(5, 0.75, HeldOut(45, 50, 0.2))]
    write_seeds(tmp_path, found)
    written = json.loads((tmp_path / "seeds.json").read_text())
    assert written["seeds"] == [4, 5]
    assert written["validation_accuracy"]["values"] == [0.5, 0.75]
    assert written["test_accuracy"]["mean"] == pytest.approx(0.85)
    assert written["test_accuracy"]["standard_deviation"] == pytest.approx(math.sqrt(0.005))
    assert "test accuracy 85.00 ± 7.07 %" in seeds_text(found)
    assert written["test_balanced_accuracy"] is None
    recalled = [
        one._replace(tested=HeldOut(40, 50, 0.3, (0.5, None, share)))
        for one, share in zip(found, (0.5, 0.7), strict=True)
    ]
    assert "test balanced accuracy 55.00 ± 7.07 %" in seeds_text(recalled)
    write_seeds(tmp_path, [found[0], Outcome(5, None, None)])
    assert json.loads((tmp_path / "seeds.json").read_text())["test_accuracy"] is None


@pytest.mark.slow
def test_seeds_are_ordinary_trainings_that_one_command_stops_and_goes_on_with(
    choosing: Path,
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, step, steps = tmp_path / "runs", LongTraining.step, list[int]()

    def interrupted(self: LongTraining, epoch: int, index: int) -> None:
        steps.append(index)
        if len(steps) == 13:  # in the second training
            signal.raise_signal(signal.SIGTERM)
        step(self, epoch, index)

    with monkeypatch.context() as patch:
        patch.setattr(LongTraining, "step", interrupted)
        assert main([*OPTIONS, "--data", data, "--out", str(folder), "--seeds", "2"]) == 75
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"stopped; go on with: python -m pnas_fast.train --out {folder}"
    assert not (folder / "seeds.json").exists()
    assert main(["--out", str(folder)]) == 0
    alone = trained(tmp_path / "alone", data, "--seed", "1")
    for one, other in ((folder / "seed-0", choosing), (folder / "seed-1", alone)):
        assert (one / "best.safetensors").read_bytes() == (other / "best.safetensors").read_bytes()
        assert read_tested(one) == read_tested(other)
        assert TrainConfig.load(one / "config.json") == TrainConfig.load(other / "config.json")
    capsys.readouterr()
    monkeypatch.setattr(LongTraining, "step", lambda *_: pytest.fail("a step"))
    assert main(["--out", str(folder)]) == 0
    accuracies = [result.accuracy for each in (choosing, alone) if (result := read_tested(each))]
    told = f"test accuracy {100 * mean(accuracies):.2f} ± {100 * stdev(accuracies):.2f} %"
    assert told in capsys.readouterr().out.splitlines()[-1]
    assert main(["--out", str(folder), "--seeds", "3"]) == 2
    assert "(--seeds 2 -> 3)" in capsys.readouterr().err


@pytest.mark.slow
def test_what_cannot_be_trained_leaves_no_folder_for_seeds(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    line = [*OPTIONS, "--data", data, "--out", str(folder), "--seeds", "2", "--auxiliary", "0.4"]
    assert main(line) == 2
    assert "the auxiliary classifier would read" in capsys.readouterr().err
    assert not folder.exists()
