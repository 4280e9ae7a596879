"""Under a batch system: what has begun has its grace, nothing finished is lost, the status says to go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from faulty import SPEC, Source, logged
from made_up import OPERATIONS, MadeUp, Shuffled, driven
from pnas_fast.cli.ending import Ending, Limits, Stop
from pnas_fast.executors.inline import InlineExecutor
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.protocols import Event, Finished, Proposal, Started, Task
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.cli import parse
from pnas_fast.search.driver import Driver
from pnas_fast.space import Cell
from pnas_fast.strategies.random import Random
from pnas_fast.train.__main__ import main as train

CELL = Cell.parse("0:sep3x3+1:max_pool3x3")
ASKING = (signal.SIGTERM, signal.SIGUSR1)


# Being asked.


def state() -> list[Any]:
    return [signal.getsignal(number) for number in (*ASKING, signal.SIGALRM)]


def wait_for_ever() -> None:
    threading.Event().wait()


@pytest.mark.parametrize("number", ASKING)
def test_what_runs_is_told_once_and_has_its_grace(number: int) -> None:
    before, told, stop = state(), list[str](), Stop(Limits(grace=1e6))
    with stop.heard():
        stop.drains(lambda: told.append("told"))
        assert stop.why == ""
        for _ in range(3):
            signal.raise_signal(number)
    assert stop.why == signal.Signals(number).name
    assert told == ["told"]
    assert state() == before


def test_once_its_grace_is_over_it_ends_wherever_it_is() -> None:
    before, stop = state(), Stop(Limits(grace=0.001))
    stop.drains(lambda: None)

    def hang() -> None:
        signal.raise_signal(signal.SIGTERM)
        wait_for_ever()

    with pytest.raises(Ending), stop.heard():
        hang()
    assert state() == before


@pytest.mark.parametrize("grace", [0.0, 20.0])
def test_where_nothing_runs_or_has_no_grace_it_ends_at_once(grace: float) -> None:
    stop = Stop(Limits(grace=grace))
    if not grace:
        stop.drains(lambda: None)
    with pytest.raises(Ending), stop.heard():
        signal.raise_signal(signal.SIGUSR1)


def test_it_asks_itself_when_its_hours_are_over() -> None:
    told, stop = threading.Event(), Stop(Limits(grace=1e6, hours=1e-9))
    stop.drains(told.set)
    with stop.heard():
        told.wait()
    assert stop.why == "--max-hours"
    with pytest.raises(Ending), Stop(Limits(hours=1e-9)).heard():
        wait_for_ever()


def test_an_alarm_of_others_is_theirs_again() -> None:
    def alarm(number: int, frame: Any) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGALRM, alarm), signal.setitimer(signal.ITIMER_REAL, 5e5, 7.0)
    try:
        with Stop(Limits(hours=1e3)).heard():
            assert signal.getsignal(signal.SIGALRM) is not alarm
        assert signal.getsignal(signal.SIGALRM) is alarm
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert (left > 4e5, interval) == (True, 7.0)
    finally:
        signal.signal(signal.SIGALRM, before[0])
        signal.setitimer(signal.ITIMER_REAL, *before[1])


def test_what_is_ignored_stays_ignored() -> None:
    before, stop = signal.signal(signal.SIGUSR1, signal.SIG_IGN), Stop()
    try:
        with stop.heard():
            signal.raise_signal(signal.SIGUSR1)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    "given", ["--grace=-1", "--grace=x", "--max-hours=0", "--max-hours=nan", "--grace=inf"]
)
def test_times_that_cannot_be_are_one_line(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse([given])
    assert end.value.code == 2
    assert re.search(
        r"argument --\S+: '\S+', allowed is a number from .* to 1e\+06\n$", capsys.readouterr().err
    )


# Executors and the driver.


def task(number: int, what: str) -> Task:
    return Task(number, Proposal(CELL, 1, note={"do": what}), number)


def kinds(events: list[Any]) -> list[tuple[str, int]]:
    return [
        (type(event).__name__, event.task.number) for event in events if isinstance(event, Started | Finished)
    ]


@pytest.mark.slow
def test_an_executor_that_drains_finishes_what_it_has_begun(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    with LocalExecutor(["cpu"], tmp_path, 60.0) as executor:
        executor.start(SPEC, Source())
        for number, what in enumerate(("waits", "works", "works")):
            executor.submit(task(number, what))
        events: list[Any] = []
        while not events:
            events += [event for event in executor.events() if isinstance(event, Started)]
        executor.drain()
        executor.submit(task(3, "works"))
        with (tmp_path / "go").open("w"):
            pass
        while happened := list(executor.events()):
            events += happened
        assert kinds(events) == [("Started", 0), ("Finished", 0)]
        executor.submit(task(4, "works"))
        assert list(executor.events()) == []
    assert [number for _, number, _ in logged(tmp_path)] == [0]


@pytest.mark.slow
def test_a_draining_executor_tries_nothing_again(tmp_path: Path) -> None:
    with LocalExecutor(["cpu"], tmp_path, 60.0) as executor:
        executor.start(SPEC, Source())
        executor.submit(task(0, "is big"))
        events = list(executor.events())
        executor.drain()
        while happened := list(executor.events()):
            events += happened
        assert kinds(events) == [("Started", 0)]


@pytest.mark.slow
def test_workers_leave_it_to_the_program_when_to_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    with LocalExecutor(["cpu"], tmp_path, 60.0) as executor:
        executor.start(SPEC, Source())
        executor.submit(task(0, "waits"))
        events = list(executor.events())
        with (tmp_path / "go").open("w"):  # it has begun
            for worker, _, _ in logged(tmp_path):
                for number in ASKING:
                    os.kill(worker, number)
        while happened := list(executor.events()):
            events += happened
        assert kinds(events) == [("Started", 0), ("Finished", 0)]


def test_an_inline_executor_drains_too(tmp_path: Path) -> None:
    with InlineExecutor(tmp_path) as executor:
        executor.start(SPEC, Source())
        for number in range(3):
            executor.submit(task(number, "works"))
        events: list[Any] = []
        while not any(isinstance(event, Finished) for event in events):
            events += executor.events()
        executor.drain()
        executor.submit(task(3, "works"))
        assert list(executor.events()) == []
        assert kinds(events) == [("Started", 0), ("Finished", 0)]


def random_search() -> Random:
    return Random(2, OPERATIONS, 40, 1, 0)


@pytest.mark.parametrize("moment", [1, 41, 52, 70])
def test_a_search_that_was_asked_to_stop_goes_on_to_the_same_trials(tmp_path: Path, moment: int) -> None:
    executor, left = Shuffled(3, moment), [moment]
    stop = Stop(Limits(grace=1e6))
    stop.drains(executor.drain)

    def ask(event: Event) -> None:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGUSR1)

    with TrialStore(tmp_path / "trials.sqlite", write=True) as store:
        driver = Driver(random_search(), "random", MadeUp(), executor, store, 0, ask, stop=stop)
        with pytest.raises(Ending), stop.heard():
            driver.run()
        kept = len(store.trials())
    assert kept == executor.evaluated
    whole = driven(tmp_path / "undisturbed", strategy=random_search())
    assert driven(tmp_path / "trials.sqlite", strategy=random_search()) == whole
    assert kept < len(whole)


# Commands.

MINE = """\
import os

def evaluate(build, data, context):
    with open("calls", "a") as calls:
        calls.write(f"{context.seed}\\n")
    with open("calls") as calls:
        if len(calls.readlines()) == 1:
            with open("go") as go:
                go.read()
            raise ValueError("\\x1b[31mred\\x07 \\x9b")
    return 0.5
"""

SEARCH = (
    "-m pnas_fast.search --strategy random --budget 12 --blocks 2 --finalists 0 --evaluator mine:evaluate "
    "--device cpu --preset quick --workers 1 --out run"
)


def everybody_of(session: int) -> list[int]:
    """All processes of a session, as a batch system signals a job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_search_keeps_what_finishes_within_its_grace_and_goes_on_later(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    os.mkfifo(tmp_path / "go")
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    # A log that goes to a file, handed down by programs that colour theirs.
    pipes["env"] = os.environ | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    command = [sys.executable, *SEARCH.split()]
    with subprocess.Popen([*command, "--grace", "900"], start_new_session=True, **pipes) as process:
        with (tmp_path / "go").open("w"):  # the first child has begun
            for number in everybody_of(process.pid):
                os.kill(number, signal.SIGTERM)
        output, errors = process.communicate()
    assert (process.returncode, errors) == (75, "")
    assert "Continue with: python -m pnas_fast.search --out run" in output
    record = RunRecord.load(tmp_path / "run")
    assert len(record.trials) == len(calls(tmp_path)) < 12
    assert record.failed[0].measurement.error == "ValueError: \x1b[31mred\x07 \x9b"

    done = subprocess.run([*command, "--max-hours", "99", "--serve", "0"], check=False, **pipes)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^the report, as it grows: http://127\.0\.0\.1:\d+/$", done.stdout, re.MULTILINE)
    assert len(calls(tmp_path)) == len({*calls(tmp_path)}) == 12
    log = output + done.stdout
    assert r"ValueError: \x1b[31mred\x07 \x9b" in log
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", log) == []


@pytest.mark.slow
def test_a_search_whose_hours_are_over_says_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    command = [sys.executable, *SEARCH.split(), "--max-hours", "1e-9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (75, "")
    assert not (tmp_path / "calls").exists()


TRAIN = (
    "--cell 0:identity+1:identity --data digits --train-images 64 --batch 32 --epochs 2 --repeats 1 "
    "--filters 4 --auxiliary 0 --cutout 0 --device cpu"
)


@pytest.mark.slow
def test_a_training_whose_hours_are_over_goes_on_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    before, folder = state(), str(tmp_path / "run")
    assert train([*TRAIN.split(), "--out", folder, "--max-hours", "1e-9"]) == 75
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000-00000001"]
    assert capsys.readouterr().out.endswith(
        f"stopped; go on with: python -m pnas_fast.train --out {folder}\n"
    )
    assert train(["--out", folder]) == 0
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", capsys.readouterr().out) == []
    assert state() == before


@pytest.mark.slow
def test_a_training_that_does_not_stop_within_its_grace_is_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pnas_fast.train.training import LongTraining

    def hangs(self: LongTraining, epoch: int, index: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        wait_for_ever()

    monkeypatch.setattr(LongTraining, "step", hangs)
    assert train([*TRAIN.split(), "--out", str(tmp_path / "run"), "--grace", "0.001"]) == 75
    assert "stopped; go on with" in capsys.readouterr().out


# The page on it.


def script_of(heading: str) -> str:
    """The first shell script below a heading of docs/batch.md."""
    text = (Path(__file__).parents[1] / "docs" / "batch.md").read_text("utf-8").split(f"## {heading}\n")[1]
    found = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def stand_in(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f'#!/bin/sh\necho {name} "$@"\n{body}\n')
    (folder / name).chmod(0o755)


def shell(folder: Path, script: str) -> tuple[int, list[str]]:
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    command = ["bash", "-c", script]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(("status", "again"), [(75, True), (0, False), (1, False), (2, False)])
@pytest.mark.parametrize("signalled", ["", "kill -TERM $PPID; kill -USR1 $PPID; "])
def test_the_script_for_slurm_requeues_what_is_to_go_on(
    tmp_path: Path, status: int, again: bool, signalled: str
) -> None:
    stand_in(tmp_path, "srun", f"{signalled}exit {status}")
    stand_in(tmp_path, "scontrol", "")
    code, said = shell(tmp_path, script_of("Slurm"))
    assert code == status
    assert said[0].startswith("srun python -m pnas_fast.search ")
    assert said[1:] == ["scontrol requeue 17"] * again
    given = said[0].removeprefix("srun python -m pnas_fast.search ").split()
    assert parse(given).limits.grace == 60


def test_the_loop_goes_on_while_it_is_told_to(tmp_path: Path) -> None:
    stand_in(
        tmp_path, "python", "[ -e second ] && exit 0; [ -e first ] && touch second; touch first; exit 75"
    )
    stand_in(tmp_path, "sleep", "")
    code, said = shell(tmp_path, script_of("Anywhere else"))
    assert code == 0
    assert [line.split()[0] for line in said] == ["python", "sleep", "python", "sleep", "python"]
