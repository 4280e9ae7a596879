"""A run's trials as a study of Optuna, read back by Optuna."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from made_up import KilledError, driven
from pnas_fast.export.__main__ import main
from pnas_fast.export.cli import parse
from pnas_fast.protocols import Event, Told, Trial
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore

pytestmark = pytest.mark.usefixtures("few_steps")

CONFIG = {"strategy": "progressive", "operations": ["sep3x3", "identity", "max_pool3x3"], "seed": 0}


def made(folder: Path, until: int = 1000, **config: Any) -> list[Trial]:
    """A made-up search's trials, in a folder as a search leaves it; killed when that trial was told."""

    def emit(event: Event) -> None:
        if isinstance(event, Told) and event.trial.number == until:
            raise KilledError

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    try:
        return driven(folder / "trials.sqlite", emit=emit)
    except KilledError:
        return RunRecord.load(folder).trials


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna", reason="pnas_fast[optuna] is not installed")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_every_trial_is_there_once(
    tmp_path: Path, url: str, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = made(run, until=22)
    assert main(["--run", str(run), "--study", url]) == 0
    trials = made(run)
    assert len(first) < len(trials) == 33
    for _ in range(2):
        assert main(["--run", str(run), "--study", url]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert [line.partition(" trials")[0] for line in said.out.splitlines()] == [
        f"{len(first)} of {len(first)}",
        f"{33 - len(first)} of 33",
        "0 of 33",
    ]
    study = optuna.load_study(study_name="run", storage=url)
    assert study.direction.name == "MAXIMIZE"
    best = max((trial for trial in trials if trial.done), key=lambda trial: trial.accuracy)
    assert study.best_value == best.accuracy
    assert study.user_attrs["best_cell"] == str(RunRecord.load(run).ranked[0].cell)
    for found, trial in zip(study.trials, trials, strict=True):
        assert found.state.name == ("COMPLETE" if trial.done else "FAIL")
        assert found.value == (trial.accuracy if trial.done else None)
        assert found.user_attrs["trial"] == trial.number
        assert found.user_attrs["cell"] == str(trial.cell)
        assert found.user_attrs.get("error") == trial.measurement.error
        assert found.user_attrs["note_level"] == len(trial.cell)
        sides = [side for block in trial.cell.blocks for side in block.sides]
        names = [f"block{b + 1}_%s{s}" for b in range(len(trial.cell)) for s in (1, 2)]
        assert found.params == {
            name % what: value
            for name, side in zip(names, sides, strict=True)
            for what, value in zip(("input", "operation"), side, strict=True)
        }
        assert found.distributions["block1_operation1"].choices == tuple(CONFIG["operations"])  # type: ignore[arg-type]
        assert found.datetime_start <= found.datetime_complete


def test_how_long_a_trial_took_and_what_else_was_measured(tmp_path: Path, url: str, optuna: Any) -> None:
    run = tmp_path / "run"
    trial = next(trial for trial in made(run, until=3) if trial.done)
    with TrialStore(run / "trials.sqlite", write=True) as store:
        values = json.dumps({"accuracy": trial.accuracy, "seconds": 90.5, "parameters": 1234})
        store._write(
            'UPDATE measurements SET "values" = ? WHERE cell = ?', [values, str(trial.cell.canonical())]
        )
    assert main(["--run", str(run), "--study", url, "--study-name", "mine"]) == 0
    found = optuna.load_study(study_name="mine", storage=url).trials[trial.number]
    assert found.duration.total_seconds() == 90.5
    assert found.user_attrs["parameters"] == 1234


def test_a_failed_trial_that_was_trained_again_is_another(tmp_path: Path, url: str, optuna: Any) -> None:
    run = tmp_path / "run"
    again = next(trial for trial in made(run, until=3) if trial.done)
    update = 'UPDATE measurements SET status = ?, error = ?, "values" = ? WHERE cell = ?'
    for status, error, values in (("failed", "diverged", "{}"), ("done", None, '{"accuracy": 0.25}')):
        with TrialStore(run / "trials.sqlite", write=True) as store:
            store._write(update, [status, error, values, str(again.cell.canonical())])
        assert main(["--run", str(run), "--study", url]) == 0
    found = optuna.load_study(study_name="run", storage=url).trials
    assert len(found) == 5
    assert [trial.value for trial in found if trial.user_attrs["trial"] == again.number] == [None, 0.25]


def test_a_study_of_something_else_is_refused(
    tmp_path: Path, url: str, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "one", until=3)
    made(tmp_path / "two", until=3, seed=1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    theirs = optuna.create_study(storage=url, study_name="theirs")
    theirs.add_trial(optuna.create_trial(value=0.5))
    assert main(["--run", str(tmp_path / "one"), "--study", url, "--study-name", "ours"]) == 0
    capsys.readouterr()
    for name, run in (("ours", "two"), ("theirs", "one")):
        assert main(["--run", str(tmp_path / run), "--study", url, "--study-name", name]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert f"--study-name {name}: holds trials of something else" in message
    assert len(theirs.trials) == 1


@pytest.mark.parametrize(
    ("storage", "what"),
    [
        ("sqlte:///x.db", "Can't load plugin"),
        ("sqlite:////proc/x.db", "unable to open database file"),
        ("sqlite:///garbage", "file is not a database"),
        ("nonsense", "--study the storage: cannot be used"),
        ("nonsense://me:secret@host/x", "--study nonsense://me:***@host/x: cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(
    storage: str,
    what: str,
    tmp_path: Path,
    optuna: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "run", until=3)
    (tmp_path / "garbage").write_text("no database\n")
    assert main(["--run", "run", "--study", storage]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert what in message
    assert "secret" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garbage", "run"]


def test_what_is_no_run_is_refused(
    tmp_path: Path, url: str, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(tmp_path), "--study", url]) == 2
    assert "holds no trials.sqlite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = importlib.import_module

    def import_module(name: str, *others: Any) -> Any:
        if name == "optuna":
            raise ImportError("No module named 'optuna'")
        return missing(name, *others)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert main(["--run", str(tmp_path), "--study", "sqlite:///x.db"]) == 2
    assert capsys.readouterr().err.endswith("install it with: pip install 'pnas_fast[optuna]'\n")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("--study sqlite:///x.db --model pnasnet5_mobile", "--study needs --run"),
        ("--study sqlite:///x.db --run r --output x.onnx", "--output does not go with --study"),
        ("--study sqlite:///x.db --run r --precision int8", "--precision does not go with --study"),
        ("--study sqlite:///x.db --run r --class-names x", "--class-names does not go with --study"),
        ("--study sqlite:///x.db --run r --images x", "--images does not go with --study"),
        ("--study-name x --run r --output x.onnx", "--study-name goes with --study"),
        ("--run r", "the following arguments are required: --output, or --study"),
    ],
)
def test_options_that_do_not_belong_together(
    given: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        parse(given.split())
    assert error.value.code == 2
    assert capsys.readouterr().err == f"python -m pnas_fast.export: error: {what}\n"
