"""The search as a whole: what it leaves, that it can be killed at any time, that workers do not matter."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pnas_fast import Cell, SearchConfig, run_search
from pnas_fast.candidates import expand, one_block_cells
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.network import Genotype
from pnas_fast.protocols import DataSource, Spec, StrategyError
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import load_child
from pnas_fast.search import run as run_module
from pnas_fast.search.command import main
from pnas_fast.search.placement import Placement
from pnas_fast.search.preflight import Load
from pnas_fast.search.result import SearchResult

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_workers")]

TINY = SearchConfig(
    blocks=3,
    beam=3,
    operations=("sep3x3", "max_pool3x3"),
    filters=4,
    epochs=1,
    batch=32,
    train_images=128,
    finalists=0,
    device="cpu",
    workers=2,
)
OPTIONS = (
    "--preset quick --blocks 3 --beam 3 --operations sep3x3,max_pool3x3 --filters 4 --epochs 1 --batch 32 "
    "--train-images 128 --finalists 0 --device cpu"
)
COMMAND = [sys.executable, "-m", "pnas_fast.search", *OPTIONS.split(" "), "--out"]
LEVEL_1 = 10
"""One-block cells of two operations: pairs of 4 sides."""


def essence(result: SearchResult) -> list[tuple[object, ...]]:
    """What must not depend on how a search was carried out."""
    names = ("accuracy", "validation_loss", "loss", "images_seen", "parameters", "multiply_adds")
    return [
        (t.number, t.proposal, t.measurement.status, t.measurement.curves, *(t.value(name) for name in names))
        for t in (*result.record.trials, *result.record.finals)
    ]


def notes(result: SearchResult) -> list[dict[str, object]]:
    """What the strategy noted, without seconds."""
    return [{k: v for k, v in level.items() if k != "surrogate_seconds"} for level in result.levels]


@pytest.fixture(scope="module")
def finished(warm_workers: None, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return run_search(TINY, out=tmp_path_factory.mktemp("runs") / "tiny", progress=False)


def test_it_grows_cells_level_by_level(finished: SearchResult) -> None:
    trials = finished.trials
    assert trials.level.tolist() == [1] * LEVEL_1 + [2] * 3 + [3] * 3
    assert (trials.status == "done").all()
    cells = [Cell.parse(text) for text in trials.cell]
    assert [len(cell) for cell in cells] == trials.level.tolist()
    assert len({str(cell.canonical()) for cell in cells}) == len(cells)
    for level in (2, 3):
        parents = {cell.blocks for cell in cells if len(cell) == level - 1}
        assert all(cell.blocks[:-1] in parents for cell in cells if len(cell) == level)
    assert [level["candidates"] for level in finished.levels[:2]] == [
        LEVEL_1,
        len(expand(one_block_cells(TINY.operations), TINY.operations).codes),
    ]


def test_it_leaves_the_best_cell_its_weights_and_a_report(finished: SearchResult) -> None:
    assert finished.accuracy == np.nanmax(finished.trials.accuracy)
    best = int(np.nanargmax(finished.trials.accuracy))
    assert str(finished.best) == finished.trials.cell[best]
    assert load_child(finished.weights).parameters_count == finished.trials.parameters[best]
    assert str(finished.best) in finished.report.read_text()
    assert list((finished.folder / "figures").glob("*.svg"))
    assert finished.images_seen == (LEVEL_1 + 6) * 128
    assert not (finished.folder / "children").exists()
    assert not list(finished.folder.glob("**/*.tmp"))


def test_a_finished_search_is_not_trained_again(finished: SearchResult) -> None:
    before = essence(finished)
    again = run_search(TINY, out=finished.folder, progress=False)
    assert essence(again) == before
    assert again.trials.seconds.tolist() == finished.trials.seconds.tolist()


def test_kernels_are_compiled_before_the_first_child_and_not_for_a_finished_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def warm(config: SearchConfig, *_: object) -> None:
        found.append(len(RunRecord.load(tmp_path / "run").trials))

    monkeypatch.setattr(run_module, "warm_kernels", warm)
    for _ in range(2):
        run_search(replace(TINY, blocks=1), out=tmp_path / "run", progress=False)
    assert found == [0]


def test_the_number_of_workers_does_not_matter(finished: SearchResult, tmp_path: Path) -> None:
    alone = run_search(replace(TINY, workers=1), out=tmp_path / "alone", progress=False)
    assert essence(alone) == essence(finished)
    assert notes(alone) == notes(finished)
    assert alone.best == finished.best
    assert alone.weights.read_bytes() == finished.weights.read_bytes()


def begun(command: list[str], folder: Path, line: str, signal_number: int) -> tuple[int, str, str]:
    """Run a command until it has printed a line with some words, then send its processes a signal."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    )
    assert process.stdout is not None
    read, seen = "", ""
    while line not in seen and (seen := process.stdout.readline()):
        read += seen
    assert line in read, process.stderr.read() if process.stderr else ""
    os.killpg(process.pid, signal_number)
    output, errors = process.communicate(timeout=120)
    return process.returncode, read + output, errors


@pytest.mark.parametrize("strategy", ["progressive", "random", "evolution"])
def test_a_search_killed_at_any_child_ends_the_same(
    strategy: str, finished: SearchResult, tmp_path: Path
) -> None:
    """Killed after 1, 3, 6, 9 and 12 children more than it had, at two workers and at one."""
    few = {"budget": 12, "finalists": 2, "final_replicas": 2}  # the last kills are in the final choice
    config = replace(TINY.for_strategy(strategy), **({} if strategy == "progressive" else few))
    expected = finished if strategy == "progressive" else run_search(
        replace(config, workers=1), out=tmp_path / "undisturbed", progress=False
    )  # fmt: skip
    folder, moments = tmp_path / "killed", random.Random(0)
    for kill in range(5):
        script = KILLED_AFTER.format(children=moments.randint(1, 4), workers=1 + kill % 2, strategy=strategy)
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    result = run_search(config, out=folder, progress=False)
    assert essence(result) == essence(expected)
    assert notes(result) == notes(expected)
    assert result.weights.read_bytes() == expected.weights.read_bytes()


KILLED_AFTER = """
import os, signal, sys
from pnas_fast.executors import fork_server

fork_server.fork_server("pnas_fast.executors.worker")  # its imports beside ours
from pnas_fast import SearchConfig, run_search
from pnas_fast.runs import store

add, left = store.TrialStore.add, [{children}]

def add_and_die(self, key, measurement):
    add(self, key, measurement)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

store.TrialStore.add = add_and_die
config = SearchConfig(
    blocks=3, operations=("sep3x3", "max_pool3x3"), filters=4, epochs=1, batch=32, train_images=128,
    device="cpu", workers={workers}, strategy="{strategy}",
    **(
        {{"beam": 3, "finalists": 0}} if "{strategy}" == "progressive"
        else {{"budget": 12, "finalists": 2, "final_replicas": 2}}
    ),
)
run_search(config, out=sys.argv[1], progress=False)
"""


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)],
)
def test_ctrl_c_stops_cleanly_and_says_how_to_continue(tmp_path: Path, number: int, expected: int) -> None:
    # Epochs enough that it cannot be over before the signal is there.
    more = ["run", "--epochs", "100000", "--grace", "0.1"]
    status, output, errors = begun([*COMMAND, *more], tmp_path, "level 1/3", number)
    assert status == expected
    assert "Continue with: python -m pnas_fast.search --out run" in output
    assert errors == ""


STOPPED_AT_TORCH = """
import signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            signal.raise_signal(int(sys.argv[1]))

sys.meta_path.insert(0, Interrupting())
from pnas_fast.search.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("name", ["search", "train"])
def test_what_stops_it_while_it_imports_is_quiet(name: str, number: int, expected: int) -> None:
    script = STOPPED_AT_TORCH.replace("pnas_fast.search", f"pnas_fast.{name}")
    done = subprocess.run(
        [sys.executable, "-c", script, str(number)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")


def test_a_child_is_traced_by_its_cell_or_its_place(
    finished: SearchResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = [*COMMAND[3:-1], "--blocks", "1", "--out", str(tmp_path / "run"), "--profile"]
    assert main([*arguments, finished.trials.cell[2]]) == 0
    assert f"{tmp_path / 'run' / 'trace-2.json'}, for" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run").glob("trace-*")] == ["trace-2.json"]
    result = SearchResult.load(tmp_path / "run")
    assert result.trials.accuracy.tolist() == finished.trials.accuracy[:LEVEL_1].tolist()
    assert main([*arguments, "2"]) == 0
    assert "--profile 2: no child that was trained now is that" in capsys.readouterr().out


def test_an_exploring_search_is_recorded_as_one(tmp_path: Path) -> None:
    result = run_search(replace(TINY, blocks=2, kappa=2.0), out=tmp_path / "run", progress=False)
    assert json.loads((result.folder / "config.json").read_text())["kappa"] == 2.0
    assert len(result.trials) == LEVEL_1 + 3


def test_failed_children_are_recorded_and_the_search_goes_on_without_them(tmp_path: Path) -> None:
    # At this learning rate some children diverge and others do not.
    config = replace(TINY, blocks=2, beam=12, learning_rate=40.0, clip=0.0, epochs=2)
    result = run_search(config, out=tmp_path / "run", progress=False)
    trials = result.trials
    failed = trials.status == "failed"
    assert 0 < failed[:LEVEL_1].sum() < LEVEL_1
    assert all(error.startswith("diverged: ") for error in trials.error[failed])
    assert np.isnan(trials.accuracy[failed]).all()
    assert (trials.error[~failed] == "").all()
    parents = {Cell.parse(text).blocks for text in trials.cell[:LEVEL_1][~failed[:LEVEL_1]]}
    assert len(trials) == LEVEL_1 + 12
    assert all(Cell.parse(text).blocks[:-1] in parents for text in trials.cell[LEVEL_1:])
    assert "diverged" in result.report.read_text()


def test_a_level_without_a_finished_child_ends_the_search_with_the_reason(tmp_path: Path) -> None:
    config = replace(TINY, blocks=2, time_limit=0.001)
    with pytest.raises(StrategyError, match=r"level 1: all 10 children failed, the first one: exceeded"):
        run_search(config, out=tmp_path / "run", progress=False)
    trials = RunRecord.load(tmp_path / "run").trials
    assert len(trials) == LEVEL_1
    assert not any(trial.done for trial in trials)


def test_a_folder_in_cifar10s_binary_format_trains_and_a_truncated_one_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    random = np.random.default_rng(0)
    for number in range(1, 6):
        records = random.integers(0, 256, (10_000, 3_073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(data / f"data_batch_{number}.bin")
    command = [sys.executable, "-m", "pnas_fast.search", *OPTIONS.split(" "), "--data", f"cifar10:{data}"]
    command += ["--operations", "identity", "--blocks", "1", "--out"]
    done = subprocess.run([*command, str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (SearchResult.load(tmp_path / "run").trials.images_seen == 128).all()
    with (data / "data_batch_3.bin").open("r+b") as file:
        file.truncate(30_000_000)
    refused = subprocess.run([*command, str(tmp_path / "no")], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "data_batch_3.bin: 30,000,000 bytes, expected 30,730,000" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_children_side_by_side_and_what_kernels_are_planned_for_are_the_runs(
    finished: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: what was chosen with the number of children stays, and the number of children is free."""
    given: list[int] = []

    def choose(placement: Placement) -> None:
        def chosen(config: SearchConfig, *_: object) -> tuple[Placement, list[Load]]:
            given.append(config.share)
            return replace(placement, share=config.share or placement.share), []

        monkeypatch.setattr(run_module, "choose_placement", chosen)

    monkeypatch.setattr(run_module, "CPU", "another")
    specs: list[Spec] = []
    start = LocalExecutor.start

    def noted(self: LocalExecutor, spec: Spec, data: DataSource) -> None:
        specs.append(spec)
        start(self, spec, data)

    monkeypatch.setattr(LocalExecutor, "start", noted)
    folder = tmp_path / "together"
    choose(Placement(("cpu",), 3, 4))
    small = replace(TINY, blocks=2)
    run_search(small, out=folder, progress=False)
    assert SearchConfig.load(folder / "config.json").share == 4
    choose(Placement(("cpu",), 2, 8))
    result = run_search(TINY, out=folder, progress=False)
    assert SearchConfig.load(folder / "config.json").share == 4
    assert given == [0, 4]
    assert [spec.settings["settings"]["share"] for spec in specs] == [4, 4]
    assert essence(result) == essence(finished)


def test_levels_epochs_and_the_beam_can_be_raised(finished: SearchResult, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = run_search(replace(TINY, blocks=2), out=folder, progress=False)
    seconds = short.trials.seconds.tolist()
    longer = run_search(TINY, out=folder, progress=False)
    assert essence(longer) == essence(finished)
    assert longer.trials.seconds.tolist()[: len(seconds)] == seconds, "none is trained again"
    wider = run_search(replace(TINY, beam=4), out=folder, progress=False)
    assert wider.trials.level.tolist() == [1] * LEVEL_1 + [2] * 4 + [3] * 4
    assert wider.trials.seconds.tolist()[:LEVEL_1] == seconds[:LEVEL_1]
    assert_weights_are_of_the_best(wider)
    again = run_search(replace(TINY, beam=4, epochs=2), out=folder, progress=False)
    assert (again.trials.images_seen == 2 * 128).all()
    assert_weights_are_of_the_best(again)


def assert_weights_are_of_the_best(result: SearchResult) -> None:
    network = load_child(result.weights, expected=result.record.weights_digest)
    assert network.genotype == Genotype.of(result.best.canonical())


def test_weights_are_of_the_best_where_what_is_proposed_has_changed(tmp_path: Path) -> None:
    """The former best comes again late, or never, after others that are worse were trained."""
    folder = tmp_path / "run"
    config = replace(TINY.for_strategy("random"), budget=6, blocks=2, seed=3)
    for changed in (config, replace(config, budget=9), replace(config, budget=12)):
        assert_weights_are_of_the_best(run_search(changed, out=folder, progress=False))
    store = TrialStore(folder / "trials.sqlite", write=True)
    with store:
        store.set_fact("weights_of", "another child")
    assert_weights_are_of_the_best(run_search(replace(config, budget=12), out=folder, progress=False))


def test_a_search_killed_while_it_begins_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the folder holds before each step of its beginning is a run, and can be looked at."""
    config = replace(TINY, blocks=1, operations=("identity",))
    states = dict[str, Path]()

    def kept(name: str) -> Any:
        step = getattr(run_module, name)

        def keep(*arguments: Any, **named: Any) -> Any:
            states[name] = tmp_path / name
            shutil.copytree(tmp_path / "run", states[name], dirs_exist_ok=True)
            return step(*arguments, **named)

        return keep

    steps = ("TrialStore", "settle", "settle_costs")
    with monkeypatch.context() as patch:
        for name in steps:
            patch.setattr(run_module, name, kept(name))
        whole = run_search(config, out=tmp_path / "run", progress=False)
    assert tuple(states) == steps
    for name, folder in states.items():
        if name != "TrialStore":
            assert RunRecord.load(folder).trials == []
        assert essence(run_search(config, out=folder, progress=False)) == essence(whole)


def test_failed_children_are_trained_again_where_that_is_asked(tmp_path: Path) -> None:
    config = replace(TINY, blocks=1, time_limit=0.001)
    with pytest.raises(StrategyError):
        run_search(config, out=tmp_path / "run", progress=False)
    longer = replace(config, time_limit=600.0)
    with pytest.raises(StrategyError):
        run_search(longer, out=tmp_path / "run", progress=False)
    result = run_search(longer, out=tmp_path / "run", retry_failed=True, progress=False)
    assert (result.trials.status == "done").all()


def test_data_may_move_and_may_not_be_others(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    labels = numbers.integers(0, 4, 200)
    config = replace(TINY, blocks=1, operations=("identity",), train_images=0)
    first = run_search(config, data=(images, labels), out=tmp_path / "run", progress=False)
    again = run_search(config, data=(images.copy(), labels.tolist()), out=tmp_path / "run", progress=False)
    assert again.trials.seconds.tolist() == first.trials.seconds.tolist()
    with pytest.raises(RunError, match="were trained on other images"):
        run_search(config, data=(255 - images, labels), out=tmp_path / "run", progress=False)


def test_a_result_prints_itself_and_has_its_best(finished: SearchResult) -> None:
    text = str(finished)
    assert str(finished.best) in text
    assert f"{finished.accuracy:.2%}" in text
    assert len(text.splitlines()) <= 7
    top = finished.top(3)
    assert [trial.accuracy for trial in top] == sorted(finished.trials.accuracy, reverse=True)[:3]
    assert top[0].cell == finished.best


def test_weights_that_were_lost_are_made_again(tmp_path: Path) -> None:
    config = replace(TINY, blocks=1)
    result = run_search(config, out=tmp_path / "run", progress=False)
    before = result.weights.read_bytes()
    result.weights.unlink()
    again = run_search(config, out=tmp_path / "run", progress=False)
    assert again.weights.read_bytes() == before
    assert essence(again) == essence(result)


def test_evolutions_random_phase_is_random_search(tmp_path: Path) -> None:
    base = replace(TINY, blocks=2, beam=24, operations=("identity", "max_pool3x3"))
    drawn = run_search(replace(base.for_strategy("random"), budget=12), out=tmp_path / "r", progress=False)
    evolution = replace(base.for_strategy("evolution"), budget=15, population=12, lag=2)
    evolved = run_search(evolution, out=tmp_path / "e", progress=False)
    assert evolved.trials.cell[:12].tolist() == drawn.trials.cell.tolist()
    assert "parent" in evolved.record.trials[-1].proposal.note
