"""A search with a person's own function: every answer is a trial, done or failed with its reason."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import user_functions
from pnas_fast import SearchConfig, run_search
from pnas_fast.evaluation.table import write_table
from pnas_fast.protocols import EvaluatorError
from pnas_fast.search.result import SearchResult

pytestmark = pytest.mark.usefixtures("warm_workers")

CONFIG = SearchConfig(
    strategy="random", budget=8, blocks=1, operations=("identity", "max_pool3x3"), filters=4, device="cpu",
    workers=2, time_limit=1.0, finalists=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def mixed(warm_workers: None, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("runs") / "mixed"
    return run_search(CONFIG, evaluator=user_functions.of_many_kinds, out=folder, progress=False)


def test_a_dictionary_text_nan_an_error_and_a_number_are_one_trial_each(mixed: SearchResult) -> None:
    trials = mixed.record.trials
    assert len(trials) == 8
    errors = {trial.measurement.error for trial in trials if not trial.done}
    assert any("nan" in str(error) for error in errors), errors
    assert any("text" in str(error) or "str" in str(error) for error in errors), errors
    assert any("ValueError: no such luck" in str(error) for error in errors), errors
    assert {trial.value("latency_ms") for trial in trials if trial.done} >= {3.0}
    assert mixed.accuracy == max(trial.accuracy for trial in trials if trial.done)


def test_the_page_copes_without_sizes(mixed: SearchResult) -> None:
    page = mixed.report.read_text()
    assert str(mixed.best) in page
    assert "no such luck" in page


def test_its_version_makes_it_another_evaluator(
    mixed: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    first = run_search(CONFIG, evaluator=user_functions.of_many_kinds, out=run, progress=False)
    assert (len(first.trials), measurements(run)) == (8, 8)
    monkeypatch.setattr(user_functions.of_many_kinds, "version", "another", raising=False)
    again = run_search(CONFIG, evaluator=user_functions.of_many_kinds, out=run, progress=False)
    assert (len(again.trials), measurements(run)) == (8, 16)
    run_search(CONFIG, evaluator=user_functions.of_many_kinds, out=run, progress=False)
    assert measurements(run) == 16


def measurements(run: Path) -> int:
    """How many a run has ever made."""
    with closing(sqlite3.connect(run / "trials.sqlite")) as connection:
        return int(connection.execute("SELECT count(*) FROM measurements").fetchone()[0])


def test_a_function_that_no_worker_can_find_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(EvaluatorError, match="neither a lambda nor one inside another"):
        run_search(CONFIG, evaluator=lambda *_: 0.5, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_function_of_the_program_itself_runs_in_its_process(tmp_path: Path) -> None:
    program = """
import sys
from pnas_fast import SearchConfig, run_search

def half(build, data, context):
    return 0.5

config = SearchConfig(strategy="random", budget=3, blocks=1, filters=4, device="cpu")
print(len(run_search(config, evaluator=half, out="run", progress=False).trials))
"""
    where = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=where, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_on_the_command_line(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    command = (
        "-m pnas_fast.search --preset quick --strategy random --budget 4 --blocks 1 --device cpu "
        "--evaluator user_functions:of_many_kinds --out run"
    )
    done = subprocess.run(
        [sys.executable, *command.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(SearchResult.load(tmp_path / "run").trials) == 4


def test_a_recorded_table_answers_and_a_cell_it_lacks_is_named(mixed: SearchResult, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_table(file, mixed.record.trials)
    config = replace(CONFIG, evaluator=f"table:{file}")
    again = run_search(config, out=tmp_path / "run", progress=False)
    assert again.trials.cell.tolist() == mixed.trials.cell.tolist()
    assert [trial.measurement.values for trial in again.record.trials] == [
        trial.measurement.values for trial in mixed.record.trials
    ]
    with pytest.raises(EvaluatorError, match=r"table\.csv"):
        run_search(replace(config, seed=1, budget=10), out=tmp_path / "other", progress=False)
