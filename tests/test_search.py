"""The search as a whole: what it leaves, that it can be killed at any time, that workers do not matter."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pnas_fast import Cell, SearchConfig, search
from pnas_fast.candidates import expand, one_block_cells
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import load_child
from pnas_fast.search.command import main
from pnas_fast.search.evaluator import child_seed
from pnas_fast.search.loop import SearchError
from pnas_fast.search.result import SearchResult

TINY = SearchConfig(
    blocks=3,
    beam=3,
    operations=("sep3x3", "max_pool3x3"),
    filters=4,
    epochs=1,
    batch=32,
    train_images=128,
    device="cpu",
    workers=2,
)
OPTIONS = (
    "--preset quick --blocks 3 --beam 3 --operations sep3x3,max_pool3x3 --filters 4 --epochs 1 --batch 32 "
    "--train-images 128 --device cpu"
)
COMMAND = [sys.executable, "-m", "pnas_fast.search", *OPTIONS.split(" "), "--out"]
LEVEL_1 = 10
"""One-block cells of two operations: pairs of 4 sides."""


def essence(result: SearchResult) -> list[tuple[object, ...]]:
    """What must not depend on how a search was carried out."""
    with TrialStore(result.folder / "trials.sqlite") as store:
        predictions = store.predictions()
        return [
            (t.position, t.cell, t.level, t.status, t.accuracy, t.loss, t.images_seen, predictions[t.cell])
            for t in store.trials()
        ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return search(TINY, out=tmp_path_factory.mktemp("runs") / "tiny", progress=False)


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
    assert [level.candidates for level in finished.levels[:2]] == [
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
    again = search(TINY, out=finished.folder, progress=False)
    assert essence(again) == before
    assert again.trials.seconds.tolist() == finished.trials.seconds.tolist()


def test_kernels_are_compiled_before_the_first_child_and_not_for_a_finished_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def warm(config: SearchConfig, *_: object) -> None:
        with TrialStore(tmp_path / "run" / "trials.sqlite") as store:
            found.append(len(store.trials()))

    # By its name the module's function would be found.
    monkeypatch.setattr(sys.modules["pnas_fast.search.run"], "warm_kernels", warm)
    for _ in range(2):
        search(replace(TINY, blocks=1), out=tmp_path / "run", progress=False)
    assert found == [0]


def test_the_number_of_workers_does_not_matter(finished: SearchResult, tmp_path: Path) -> None:
    alone = search(replace(TINY, workers=1), out=tmp_path / "alone", progress=False)
    assert essence(alone) == essence(finished)
    assert alone.best == finished.best
    assert alone.weights.read_bytes() == finished.weights.read_bytes()


def test_a_search_killed_again_and_again_ends_the_same(finished: SearchResult, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    command = [*COMMAND, str(folder)]
    moments = random.Random(0)
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, cwd=tmp_path
        )
        try:
            process.wait(timeout=moments.uniform(1.0, 9.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 2
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    result = SearchResult.load(folder)
    assert essence(result) == essence(finished)
    assert result.weights.read_bytes() == finished.weights.read_bytes()


def test_ctrl_c_stops_cleanly_and_says_how_to_continue(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = ""
    while "level 1/3" not in line:
        line = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Continue with: python -m pnas_fast.search --out run" in output
    assert errors == ""


CTRL_C_AT_TORCH = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.argv = ["python -m pnas_fast.search"]
from pnas_fast.search.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_it_imports_is_quiet() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C_AT_TORCH], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


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
    result = search(replace(TINY, blocks=2, kappa=2.0), out=tmp_path / "run", progress=False)
    assert json.loads((result.folder / "config.json").read_text())["kappa"] == 2.0
    assert len(result.trials) == LEVEL_1 + 3


def test_failed_children_are_recorded_and_the_search_goes_on_without_them(tmp_path: Path) -> None:
    # At this learning rate convolutions diverge, cells of pools alone do not.
    config = replace(TINY, blocks=2, beam=12, learning_rate=1e3, clip=0.0, epochs=2)
    result = search(config, out=tmp_path / "run", progress=False)
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
    with pytest.raises(SearchError, match=r"level 1: all 10 children failed, the first one: exceeded"):
        search(config, out=tmp_path / "run", progress=False)
    with TrialStore(tmp_path / "run" / "trials.sqlite") as store:
        trials = store.trials()
    assert len(trials) == LEVEL_1
    assert {trial.status for trial in trials} == {"failed"}


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


def test_childrens_seeds_depend_on_run_and_cell_alone() -> None:
    seeds = {child_seed(seed, cell) for seed in (0, 1) for cell in ("0:sep3x3+1:sep3x3", "0:sep3x3+0:sep3x3")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert child_seed(0, "0:sep3x3+1:sep3x3") == child_seed(0, "0:sep3x3+1:sep3x3")
