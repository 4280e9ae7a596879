"""Trackers: told everything once, and unable to stop or change a search whatever they do."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from made_up import KilledError, driven, progressive
from pnas_fast.cli.options import ConfigError
from pnas_fast.executors import launch
from pnas_fast.protocols import Event, Measurement, Noted, Proposal, Told, Trial
from pnas_fast.runs.folder import RunError
from pnas_fast.search import command
from pnas_fast.space import Cell
from pnas_fast.tracking import tracker as tracker_module
from pnas_fast.tracking import trackers
from pnas_fast.tracking.messages import Begin, Point
from pnas_fast.tracking.search import TrackedSearch
from pnas_fast.tracking.tracker import HOST
from pnas_fast.tracking.trackers import TOOLS, Kept, Tracking
from pnas_fast.train import command as train_command
from pnas_fast.train.history import read_history
from tracked_tools import recorded

CELL = Cell.parse("0:sep3x3+1:identity")

pytestmark = pytest.mark.usefixtures("few_steps")

ENDLESS = 600.0
"""Seconds that nothing here takes, however busy the machine is."""


@pytest.fixture(autouse=True)
def fake_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracked_tools

    for name, tool in vars(tracked_tools).items():
        if isinstance(tool, type) and issubclass(tool, tracked_tools.Recording):
            monkeypatch.setitem(TOOLS, name, f"tracked_tools:{name}")
    give(monkeypatch, ENDLESS)


def give(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Seconds to end in."""
    monkeypatch.setattr(trackers, "FINISH_SECONDS", dict.fromkeys(("done", "stopped", "failed"), seconds))


def tracking(folder: Path, *names: str, identity: str = "abc", said: list[str] | None = None) -> Tracking:
    lines = [] if said is None else said
    return Tracking(names, folder, identity, {"blocks": 3}, lines.append, Kept(("left.*",)))


def search(folder: Path, *names: str, said: list[str] | None = None, until: int = 1000) -> list[Trial]:
    """A made-up search that trackers are told of; it is killed when the trial of a number was told."""
    with tracking(folder, *names, said=said) as all_of_them:
        listener = TrackedSearch(all_of_them)
        strategy = progressive(listener.on)

        def emit(event: Event) -> None:
            listener.on(event)
            if isinstance(event, Told) and event.trial.number == until:
                raise KilledError

        return driven(folder / "trials.sqlite", strategy=strategy, emit=emit)


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return driven(tmp_path_factory.mktemp("store") / "trials.sqlite")


def points(folder: Path, name: str = "Recording", kind: str = "trial") -> list[list[Any]]:
    return [line[1:] for line in recorded(folder / "tracking" / name, "points") if line[0] == kind]


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_everything_is_told_once_in_order(tmp_path: Path, undisturbed: list[Trial]) -> None:
    (tmp_path / "left.txt").write_text("something")
    (tmp_path / "other.txt").write_text("something")
    assert search(tmp_path, "Recording") == undisturbed
    told = points(tmp_path)
    assert [(number, step) for number, step, *_ in told] == [(n, n) for n in range(33)]
    best, failed = 0.0, 0
    for trial, (_, _, values, texts) in zip(undisturbed, told, strict=True):
        assert texts["cell"] == str(trial.cell)
        assert values["proposal/level"] == len(trial.cell)
        if trial.done:
            assert values["accuracy"] == trial.accuracy
            assert ("best_cell" in texts) == (trial.accuracy > best)
            best = max(best, trial.accuracy)
        else:
            failed += 1
            assert values["failed"] == failed
            assert texts["error"] == "diverged"
        assert values["best_accuracy"] == best
    assert failed
    levels = points(tmp_path, kind="note")
    assert [step for _, step, *_ in levels] == [20, 26, 32]
    assert {"level/rho_before", "level/rho_after"} <= levels[-1][2].keys()
    own = tmp_path / "tracking" / "Recording"
    assert recorded(own, "begun") == [["abc", "", 0, {"blocks": 3}]]
    assert recorded(own, "finished") == [["done", 33, [], ["left.txt"]]]


def test_a_run_that_is_gone_on_with_is_told_the_rest(tmp_path: Path) -> None:
    for until in (4, 21, 30, 1000, 1000):
        try:
            search(tmp_path, "Recording", until=until)
        except KilledError:
            assert until < 1000
    assert [number for number, *_ in points(tmp_path)] == list(range(33))
    assert [step for _, step, *_ in points(tmp_path, kind="note")] == [20, 26, 32]
    own = tmp_path / "tracking" / "Recording"
    known = [(known, step) for _, known, step, _ in recorded(own, "begun")]
    assert known == [("", 0), *[("run 1", step) for step in (5, 22, 31, 33)]]
    assert [ending for ending, *_ in recorded(own, "finished")] == ["failed"] * 3 + ["done"] * 2


def test_a_run_that_was_not_tracked_before_is_told_whole(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        search(tmp_path, until=20)
    search(tmp_path, "Recording")
    assert [number for number, *_ in points(tmp_path)] == list(range(33))


def test_a_run_of_another_configuration_is_another_for_the_tool(tmp_path: Path) -> None:
    for identity in ("one", "other"):
        with tracking(tmp_path, "Recording", identity=identity) as told:
            told.offer(Point("trial", 0, 0, {"accuracy": 0.5}))
    assert len(points(tmp_path)) == 2
    assert [known for _, known, *_ in recorded(tmp_path / "tracking" / "Recording", "begun")] == ["", ""]


def test_a_failed_trial_is_told_again_once_it_is_done(tmp_path: Path) -> None:
    for done in (True, False, False, True, True):
        with tracking(tmp_path, "Recording") as told:
            told.offer(Point("trial", 0, 0, {}, done=True))
            told.offer(Point("trial", 1, 1, {"done": float(done)}, done=done))
            told.offer(Point("trial", 2, 2, {}))
    assert [number for number, *_ in points(tmp_path)] == [0, 1, 2]
    for done in (False, True, False, True):
        with tracking(tmp_path, "Recording", identity="other") as told:
            told.offer(Point("trial", 1, 1, {"done": float(done)}, done=done))
    assert [(number, values) for number, _, values, _ in points(tmp_path)[3:]] == [
        (1, {"done": 0.0}),
        (1, {"done": 1.0}),
    ]


FAULTS = {
    "FailsToBegin": r"no server anywhere\x1b[31m",
    "FailsToLog": "'what'",
    "FailsToFinish": "upload refused",
    "Leaves": "its process ended by itself, with status 3",
    "IsKilled": "its process ended by itself, with status -9",
    "FullDisk": "No space left on device",
}


def test_trackers_that_fail_change_nothing_and_are_spoken_of_once(
    tmp_path: Path, undisturbed: list[Trial]
) -> None:
    said = list[str]()
    assert search(tmp_path, "Recording", *FAULTS, "Prints", said=said) == undisturbed
    assert sorted(said) == sorted(f"--track {name}: {why}" for name, why in FAULTS.items())
    assert len(points(tmp_path)) == len(points(tmp_path, "Prints")) == 33


def test_trackers_that_hang_are_given_up_with_all_they_started(
    tmp_path: Path, undisturbed: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = ("HangsAtOnce", "HangsWithOthers", "HangsInTheEnd", "HangsWhenItLeaves")
    said = list[str]()
    with tracking(tmp_path, *hanging, said=said) as told:
        listener = TrackedSearch(told)
        assert driven(tmp_path / "trials.sqlite", emit=listener.on) == undisturbed
        assert said == []
        others = tmp_path / "tracking" / "HangsWithOthers"
        while len(recorded(others, "pids")) < 2:
            time.sleep(0.01)
        while len(points(tmp_path, "HangsInTheEnd")) + len(points(tmp_path, "HangsWhenItLeaves")) < 66:
            time.sleep(0.01)
        give(monkeypatch, 0.5)
    assert sorted(said) == sorted(f"--track {n}: it did not end in time and was given up" for n in hanging)
    pids = [pid for name in hanging[1:] for pid in recorded(tmp_path / "tracking" / name, "pids")]
    assert len(pids) == 4
    while any(lives(pid) for pid in pids):  # a killed process ends soon, not at once
        time.sleep(0.01)


def test_a_tracker_that_is_slow_is_told_what_it_missed_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "WAITING", 5)
    (tmp_path / "tracking").mkdir()
    os.mkfifo(tmp_path / "tracking" / "go")
    said = list[str]()
    every = [Point("trial", number, number, {}) for number in range(20)]
    with tracking(tmp_path, "Waits", said=said) as told:
        for point in every:
            told.offer(point)
        told.hear()
        assert said == []
        (tmp_path / "tracking" / "go").write_text("")
    assert [number for number, *_ in points(tmp_path, "Waits")] == [0, 1, 2, 3, 4]
    (line,) = said
    assert line == "--track Waits: it was too slow for 15 points; the same command run again adds them"
    monkeypatch.setattr(tracker_module, "WAITING", 100)
    for _ in range(2):
        with tracking(tmp_path, "Waits", said=said) as told:
            for point in every:
                told.offer(point)
    assert [number for number, *_ in points(tmp_path, "Waits")] == list(range(20))
    assert said == [line]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"identity": 3}', '{"identity": "abc", "marks": {"trial": {"below": "x"}}}', "\xff"]
)
def test_a_damaged_record_of_what_was_told_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking" / "Recording.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"Recording\.json: does not tell what was tracked .* remove it to"):
        tracking(tmp_path, "Recording")
    assert not recorded(tmp_path / "tracking" / "Recording", "begun")


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    def fail(into: Path) -> list[Path]:
        raise OSError("no ink")

    said = list[str]()
    with Tracking(["Recording"], tmp_path, "abc", {}, said.append, Kept((), fail)):
        pass
    assert said == ["--track: figures could not be drawn: no ink"]
    assert recorded(tmp_path / "tracking" / "Recording", "finished") == [["done", 0, [], []]]


def test_a_stopped_run_is_stopped_for_the_tool(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), tracking(tmp_path, "Recording"):
        raise KeyboardInterrupt
    assert recorded(tmp_path / "tracking" / "Recording", "finished") == [["stopped", 0, [], []]]


def test_a_tool_hears_of_a_run_that_was_killed(tmp_path: Path) -> None:
    begin = Begin("run", "abc", "", str(tmp_path / "own"), {}, 0)
    message = {"type": "begin", **{name: getattr(begin, name) for name in begin.__struct_fields__}}
    done = subprocess.run(
        launch.command(HOST, tool="tracked_tools:Recording"),
        input=json.dumps(message).encode() + b"\n",
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"known": "run 1", "error": None}
    assert recorded(tmp_path / "own", "finished") == [["stopped", 0, [], []]]


def test_a_process_that_hangs_does_not_outlive_a_run_that_was_killed() -> None:
    program = """
import os, threading
from pnas_fast.tracking.host import outlive
outlive(os.getpid(), 0.0)  # which is nobody's parent
threading.Event().wait()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, start_new_session=True)
    assert done.returncode == -signal.SIGKILL


def test_only_finite_numbers_are_values(tmp_path: Path) -> None:
    with tracking(tmp_path, "Recording") as told:
        listener = TrackedSearch(told)
        listener.on(Noted("begun", {"level": 1}))
        listener.on(Noted("round", {"a": 1, "b": None, "c": float("nan"), "d": {"e": 1}, "f": True}, True))
        proposal = Proposal(CELL, 1, note={"final": 2, "how": "mutation"})
        listener.on(Told(Trial(0, proposal, Measurement("done", {"accuracy": 0.5})), False))
    assert points(tmp_path, kind="note") == [[0, 0, {"round/a": 1.0}, {}]]
    (point,) = points(tmp_path)
    assert point[2] == {"final/accuracy": 0.5, "proposal/final": 2.0}


def test_a_long_training_is_told_every_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: importlib.util.find_spec("json"))
    options = "--cell 0:identity+1:identity --data digits --train-images 64 --epochs 2 --batch 32 --filters 2"
    run = [*options.split(), "--repeats", "1", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert train_command.main([*run, "--seed", "3"]) == 0
    for _ in range(2):
        assert train_command.main([*run, "--seed", "3", "--track", "Recording"]) == 0
    history = read_history(tmp_path / "run")
    told = points(tmp_path / "run", kind="epoch")
    assert [(number, step) for number, step, *_ in told] == [(0, 1), (1, 2)]
    for record, (_, _, values, _) in zip(history, told, strict=True):
        assert (values["loss"], values["accuracy"]) == (record.loss, record.accuracy)
    assert told[-1][2]["best_accuracy"] == max(record.accuracy or 0.0 for record in history)
    ends = recorded(tmp_path / "run" / "tracking" / "Recording", "finished")
    kept = ["best.safetensors", "config.json", "history.jsonl", "training.svg"]
    assert ends == [["done", 3, [], kept]] * 2


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "extra"), [("tensorboard", 1), ("mlflow", 2), ("wandb", 3)])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(
    name: str, extra: int, refused: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert command.main(["--preset", "quick", "--device", "cpu", "--track", name]) == 2
    assert capsys.readouterr().err == (
        f"python -m pnas_fast.search: error: --track {name}: the package {name} is not installed; "
        f"install it with: pip install 'pnas_fast[{name}]'\n"
    )


def test_a_folder_of_its_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up_tool").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("made_up_tool") is not None
    monkeypatch.setitem(TOOLS, "made_up_tool", "")
    with pytest.raises(ConfigError, match="is not installed"):
        trackers.check_usable(["made_up_tool"])


def test_wandb_without_a_key_is_refused(
    refused: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: importlib.util.find_spec("json"))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    secrets = tmp_path_factory.mktemp("home") / "netrc"
    monkeypatch.setenv("NETRC", str(secrets))
    with pytest.raises(ConfigError, match="no API key is known; run wandb login"):
        trackers.check_usable(["wandb"])
    secrets.write_text("machine api.wandb.ai login user password 0123\n")
    secrets.chmod(0o600)
    trackers.check_usable(["wandb"])
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(ConfigError, match="no API key is known"):
        trackers.check_usable(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers.check_usable(["wandb"])


@pytest.mark.parametrize("given", ["", "tensorbord", "mlflow,", "mlflow wandb", "MLFLOW"])
def test_a_name_that_is_none_is_refused(
    given: str, refused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(["--track", given])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "allowed are tensorboard, mlflow, wandb" in message
