"""What befalls a training's folder, its disk and its terminal: one line, nothing lost, nothing believed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pnas_fast.cli.ending import Limits
from pnas_fast.threads import torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.checkpoint import CHECKPOINTS, Checkpoint, Place, read_checkpoint, save_checkpoint
from pnas_fast.train.history import Epoch, read_history, write_history
from pnas_fast.train.stopping import stopping
from pnas_fast.train.training import LongTraining
from test_train import OPTIONS, assert_same_result, checkpoints, damage, finished, one_thread  # noqa: F401

pytestmark = pytest.mark.slow

BEST, HISTORY = "best.safetensors", "history.jsonl"
FOREVER = ["--checkpoint-minutes", "60"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training whose two checkpoints are those after its second and third epoch."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with torch_threads(1):
        assert main([*OPTIONS, *FOREVER, "--out", str(folder)]) == 0
    assert [path.stem for path in checkpoints(folder)] == ["000002-00000000", "000003-00000000"]
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def newest(folder: Path) -> Checkpoint:
    return read_checkpoint(checkpoints(folder)[-1])


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *more: str, status: int = 2) -> str:
    """The one line by which a run is refused; its files are what they were before."""
    before = contents(folder)
    assert main(["--out", str(folder), *more]) == status
    errors = capsys.readouterr().err
    assert errors.startswith("python -m pnas_fast.train: error: ")
    assert errors.count("\n") == 1
    assert contents(folder) == before
    return errors


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


Tensors = dict[str, Tensor]
VELOCITY = "optimizer.0.momentum_buffer"


def with_(name: str, tensor: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: tensor}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


FORGED: list[tuple[Callable[[Tensors], Tensors], str]] = [
    (with_(VELOCITY, torch.zeros(3)), f"tensor {VELOCITY} is float32 (3,), expected float32 (12, 3, 3, 3)"),
    (with_(VELOCITY, torch.zeros(8, 3, 3, 3)), f"tensor {VELOCITY} is float32 (8, 3, 3, 3), expected"),
    (with_(VELOCITY, torch.zeros(4, 3, 3, 3).double()), f"tensor {VELOCITY} is float64"),
    (without(VELOCITY), f"tensor {VELOCITY} is missing, expected float32"),
    (
        with_("optimizer.9999.momentum_buffer", torch.zeros(3)),
        "momentum_buffer is float32 (3,), expected missing",
    ),
    (with_("optimizer.x.square_avg", torch.zeros(3)), "optimizer.x.square_avg is float32 (3,)"),
    (without("network.stem.weight"), "tensor network.stem.weight is missing"),
    (with_("average.stem.weight", torch.zeros(1)), "tensor average.stem.weight is float32 (1,)"),
    (with_("losses", torch.zeros(2).double()), "tensor losses is float64 (2,), expected float64 ()"),
    (without("losses"), "tensor losses is missing, expected float64 ()"),
    (with_("network.extra", torch.zeros(2)), "tensor network.extra is float32 (2,), expected missing"),
]


@pytest.mark.parametrize(("forge", "said"), FORGED, ids=[said for _, said in FORGED])
def test_tensors_that_are_not_the_networks_and_the_optimisers_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], forge: Callable[[Tensors], Tensors], said: str
) -> None:
    last = newest(folder)
    save_checkpoint(folder, last.place, last.machine, forge(last.tensors))
    line = refusal(capsys, folder)
    assert str(last.path) in line
    assert said in line


PLACES = [
    ({"epoch": 10**9}, "Expected `int` <= 100000 - at `$.epoch`"),
    ({"epoch": 10**400}, "Expected `int` <= 100000"),
    ({"epoch": 4}, "after epoch 4 and 0 steps, allowed are 3 epochs of 8 steps"),
    ({"index": 1}, "after epoch 3 and 1 steps"),
    ({"epoch": 2, "index": 9}, "after epoch 2 and 9 steps"),
    ({"index": 10**12}, "at `$.index`"),
    ({"index": -1}, "Expected `int` >= 0 - at `$.index`"),
    ({"best": 2.0}, "Expected `float` <= 1"),
    ({"best": float("nan")}, "malformed"),
    ({"seconds": -1.0}, "at `$.seconds`"),
    ({"seconds": None}, "Expected `float`, got `null`"),
]


@pytest.mark.parametrize(("values", "said"), PLACES, ids=[str(values)[:30] for values, _ in PLACES])
def test_places_that_cannot_be_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], said: str
) -> None:
    last = newest(folder)
    for path in checkpoints(folder):
        path.unlink()
    if values.get("epoch") == 10**400:  # longer than a name may be: under that of another
        write_text_as_place(folder, last, json.dumps({"epoch": 10**400}))
    else:
        save_checkpoint(folder, replace(last.place, **values), last.machine, last.tensors)
    line = refusal(capsys, folder)
    assert str(folder / CHECKPOINTS) in line
    assert said in line


def write_text_as_place(folder: Path, last: Checkpoint, text: str) -> None:
    """A checkpoint with a right SHA-256 that says a text of its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pnas_fast.train.checkpoint._json",
            lambda value: text if isinstance(value, Place) else json.dumps(vars_of(value)),
        )
        save_checkpoint(folder, last.place, last.machine, last.tensors)


def vars_of(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000, '{"x":' * 100_000, '{"epoch": 1.5}', ""])
def test_a_place_that_is_none_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    last = newest(folder)
    write_text_as_place(folder, last, text)
    assert f"{last.path}: its place cannot be" in refusal(capsys, folder)


def test_a_checkpoint_under_the_name_of_another_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, last = checkpoints(folder)
    older.replace(last)
    line = refusal(capsys, folder)
    assert f"{last}: holds epoch 2, index 0, expected in a file named {older.name}" in line


CONFIGS = [
    ("[" * 100_000, "recursion"),
    ('{"epochs": ' + "9" * 400 + "}", "Number out of range"),
    ('{"epochs": %d}', "epochs is 9223372036854775807, allowed is 1 to 100000"),
    ('{"epochs": NaN}', "malformed"),
    ('{"epochs": true}', "epochs is True, allowed is a value of type int"),
    ('{"learning_rate": 1' + "0" * 300 + "}", "learning_rate is"),
    ("[]", "got `array`"),
    ("null", "got `null`"),
    ('{"unheard_of": 1}', "unheard_of"),
    ('{"epochs": {"a": 1}}', "object"),
    ("\xff", "not the configuration"),
]


@pytest.mark.parametrize(("text", "said"), CONFIGS, ids=[text[:24] for text, _ in CONFIGS])
def test_a_configuration_is_not_believed(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = folder / "config.json"
    text = text.replace("%d", str(2**63 - 1))
    try:
        changed = json.loads(text) if len(text) < 1000 else None
    except ValueError:
        changed = None
    if isinstance(changed, dict) and "epochs" not in text[:9]:
        text = json.dumps(json.loads(path.read_text()) | changed)
    path.write_bytes(text.encode("latin-1"))
    line = refusal(capsys, folder)
    assert str(path) in line
    assert len(line) < 1000


def test_a_configuration_that_lacks_something_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["epochs"], values["cell"]
    path.write_text(json.dumps(values))
    assert "config.json: not the configuration of a training (lacks cell epochs)" in refusal(capsys, folder)


LINE = '{"epoch": %s, "loss": 1.0, "accuracy": %s, "average_accuracy": null, "seconds": 1.0, "images": 256}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINE % (1, 2.5), "line 1: not an epoch (Expected `float` <= 1"),
        (LINE % (0, 0.5), "line 1: not an epoch (Expected `int` >= 1"),
        (LINE % (1, "[" * 100_000), "line 1: not an epoch"),
        (LINE % (1, 0.5) + LINE % (3, 0.5), "line 2: epoch 3 after epoch 1"),
        (LINE % (1, 0.5) + "null\n", "line 2: not an epoch"),
        (LINE % (1, 0.5) + LINE % (2, 0.5), "ends with epoch 2, the checkpoint with epoch 3"),
    ],
)
def test_a_history_is_not_believed(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (folder / HISTORY).write_text(text)
    line = refusal(capsys, folder)
    assert str(folder / HISTORY) in line
    assert said in line


def test_pipes_in_place_of_files_are_not_waited_for(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    history = (folder / HISTORY).read_bytes()
    (folder / HISTORY).unlink()
    os.mkfifo(folder / HISTORY)
    assert f"{folder / HISTORY}: is no file" in refusal(capsys, folder)
    (folder / HISTORY).unlink()
    (folder / HISTORY).write_bytes(history)
    (folder / BEST).unlink()
    os.mkfifo(folder / BEST)
    judged(folder, 0.1, 0.2, 0.3)
    os.mkfifo(folder / CHECKPOINTS / "000004-00000000.safetensors")
    assert main(["--out", str(folder)]) == 0
    assert f"{folder / BEST}: is no file; made again" in capsys.readouterr().out
    assert (folder / BEST).is_file()


def test_what_was_half_written_by_a_killed_process_is_removed(folder: Path) -> None:
    left = [f".{BEST}.4711.tmp", f".{HISTORY}.1.tmp", ".config.json.99.tmp", f"{CHECKPOINTS}/.x.2.tmp"]
    others = [".notes", ".a.tmp", "b.1.tmp"]
    for name in [*left, *others]:
        (folder / name).touch()
    assert main(["--out", str(folder)]) == 0
    assert [name for name in [*left, *others] if (folder / name).exists()] == others


def judged(folder: Path, *accuracies: float) -> None:
    """Make a run's history say other accuracies, its checkpoints' best with them."""
    write_history(
        folder,
        [Epoch(number, 1.5, value, None, 1.0, 256) for number, value in enumerate(accuracies, start=1)],
    )
    for path in checkpoints(folder):
        checkpoint = read_checkpoint(path)
        best = max(accuracies[: checkpoint.place.epoch])
        save_checkpoint(folder, replace(checkpoint.place, best=best), checkpoint.machine, checkpoint.tensors)


@pytest.mark.parametrize(("accuracies", "epoch"), [((0.1, 0.2, 0.3), 3), ((0.1, 0.3, 0.2), 2)])
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_best_weights_that_are_gone_are_made_again_from_a_checkpoint(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    accuracies: tuple[float, ...],
    epoch: int,
    harm: Callable[[Path], object],
) -> None:
    judged(folder, *accuracies)
    harm(folder / BEST)
    assert main(["--out", str(folder)]) == 0
    output = capsys.readouterr().out
    assert str(folder / BEST) in output
    assert f"made again from the checkpoint after epoch {epoch}" in output
    assert f"after epoch {epoch}; weights in" in output
    expected = read_checkpoint(checkpoints(folder)[epoch - 2]).tensors
    weights = load_file(folder / BEST)
    assert torch.equal(weights["stem.weight"], expected["average.stem.weight"])


def test_best_weights_that_no_checkpoint_holds_are_said_to_be_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(folder, 0.3, 0.2, 0.1)
    (folder / BEST).unlink()
    assert f"{folder / BEST}: is missing, and no checkpoint holds the best weights" in refusal(capsys, folder)


def test_an_unfinished_training_goes_on_without_its_best_weights(
    folder: Path,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judged(folder, 0.9, 0.8, 0.7)
    checkpoints(folder)[-1].unlink()
    (folder / BEST).unlink()
    assert main(["--out", str(folder)]) == 0
    output = capsys.readouterr().out
    assert f"{folder / BEST}: is missing, and no checkpoint holds the best weights so far" in output
    assert "after epoch 3; weights in" in output
    expected = read_checkpoint(checkpoints(whole)[-1]).tensors
    assert torch.equal(load_file(folder / BEST)["stem.weight"], expected["average.stem.weight"])


def test_a_finished_training_needs_no_checkpoints(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / CHECKPOINTS)
    monkeypatch.setattr(LongTraining, "step", lambda *_: pytest.fail("a step"))
    assert main(["--out", str(folder)]) == 0
    assert "best accuracy" in capsys.readouterr().out
    (folder / BEST).unlink()
    assert "no checkpoint holds the best weights" in refusal(capsys, folder)


def test_an_unfinished_training_without_its_checkpoints_is_not_begun_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / CHECKPOINTS)
    write_history(folder, read_history(folder)[:2])
    assert f"{folder / CHECKPOINTS}: holds no checkpoint, and {HISTORY} tells of 2 epochs" in refusal(
        capsys, folder
    )


def test_a_history_that_is_gone_is_begun_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints(folder)[-1].unlink()
    (folder / HISTORY).unlink()
    assert main(["--out", str(folder)]) == 0
    assert f"{folder / HISTORY}: is missing; it begins anew after epoch 2" in capsys.readouterr().out
    assert [record.epoch for record in read_history(folder)] == [3]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "(No space left on device); make room on that disk"),
        (errno.EDQUOT, "make room within the quota"),
        (errno.EIO, "the disk or the way to it fails"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line_and_nothing_is_lost(
    finished: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    said: str,
) -> None:
    folder, calls, fsync = tmp_path / "run", iter(range(100)), os.fsync

    def full(file: int) -> None:
        if next(calls) == 1:
            raise OSError(number, os.strerror(number))
        fsync(file)

    monkeypatch.setattr("pnas_fast.train.checkpoint.os.fsync", full)
    assert main([*OPTIONS, *FOREVER, "--out", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"{folder / CHECKPOINTS}/000002-00000000.safetensors: cannot be written" in errors
    assert said in errors
    assert "run the same command again" in errors
    assert [path.stem for path in checkpoints(folder)] == ["000001-00000000"]
    assert main([*OPTIONS, *FOREVER, "--out", str(folder)]) == 0
    assert_same_result(folder, finished)
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("kilobytes", [0, 1, 8, 30])
def test_a_limit_on_the_size_of_files_is_one_line_that_names_the_file(tmp_path: Path, kilobytes: int) -> None:
    folder = tmp_path / "run"
    line = [sys.executable, "-m", "pnas_fast.train", *OPTIONS, "--epochs", "1", "--out", str(folder)]
    script = f'ulimit -f {kilobytes}; exec "$@"'
    done = subprocess.run(["bash", "-c", script, "_", *line], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(folder) in done.stderr
    assert "cannot be written (File too large); raise the limit on the size of files" in done.stderr


def test_a_file_system_without_locks_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    line = refusal(capsys, folder)
    assert f"{folder}: cannot be written (No locks available); that file system gives no locks" in line


def test_a_checkpoint_that_the_disk_does_not_give_is_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last, read = checkpoints(folder)[-1], Path.read_bytes

    def failing(self: Path) -> bytes:
        if self == last and sys._getframe(1).f_code.co_name == "read_checkpoint":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert str(last) in refusal(capsys, folder)


def test_output_that_cannot_be_written_does_not_end_a_training(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = [sys.executable, "-m", "pnas_fast.train", *OPTIONS, "--epochs", "1", "--out", str(folder)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1  # all is done, but not all was said
    assert done.stderr.count("\n") == 1
    assert "standard output cannot be written to (No space left on device)" in done.stderr
    assert len(read_history(folder)) == 1


def test_a_reader_of_the_output_that_goes_away_stops_a_training_with_a_checkpoint(
    finished: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    line = [sys.executable, "-m", "pnas_fast.train", *OPTIONS, *FOREVER, "--out", str(folder)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("pnas_fast")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141
    assert [path.stem for path in checkpoints(folder)][-1] == "000001-00000001"
    assert main(["--out", str(folder)]) == 0
    assert_same_result(folder, finished)


def test_output_without_such_characters_does_not_end_a_training(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pnas_fast.train", *OPTIONS, "--epochs", "1", "--out", str(tmp_path / "ä")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\xb7" in done.stdout
    assert r"/\xe4/best" in done.stdout


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)],
)
def test_a_signal_before_training_begins_is_one_line_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    expected: int,
) -> None:
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
    before = [signal.getsignal(name) for name in names]
    monkeypatch.setattr(
        "pnas_fast.train.command.load_training_data", lambda *_, **__: signal.raise_signal(number)
    )
    assert main([*OPTIONS, "--out", str(tmp_path / "run")]) == expected
    assert capsys.readouterr().err == "python -m pnas_fast.train: stopped; nothing was being trained\n"
    assert not (tmp_path / "run").exists()
    assert [signal.getsignal(name) for name in names] == before


def test_nohup_is_obeyed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping(Limits()) as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you\nx")],
)
def test_a_network_that_is_too_large_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def explode(*_: Any) -> None:
        raise error

    monkeypatch.setattr(LongTraining, "__init__", explode)
    assert main([*OPTIONS, "--out", str(tmp_path / "run")]) == 1
    errors = capsys.readouterr().err
    assert "error: out of memory" in errors
    assert errors.endswith("try a smaller --batch or --filters\n")
    assert errors.count("\n") == 1


def test_a_folder_is_shown_as_it_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = folder.with_name("[bold]lr [0.1] :smile: [link=x]")
    folder.rename(strange)
    assert main(["--out", str(strange)]) == 0
    assert f"weights in {strange / BEST}, curves in" in capsys.readouterr().out
    damage(checkpoints(strange)[-1])
    assert main(["--out", str(strange)]) == 0
    assert f"{checkpoints(strange)[-1]}: damaged" in capsys.readouterr().out
