"""What the pages of docs/ show is what happens."""

import re
from pathlib import Path

import pytest

from pnas_fast.data import as_source, load
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.function import function_spec
from pnas_fast.evaluation.guard import make_evaluator
from pnas_fast.evaluation.table import table_spec, write_table
from pnas_fast.executors.inline import InlineExecutor
from pnas_fast.protocols import DataSource, Spec, Strategy, Trial
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.driver import Driver
from pnas_fast.strategies.evolution import Evolution
from pnas_fast.strategies.random import Random

OPERATIONS = ("sep3x3", "identity")


def blocks_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def searched(folder: Path, strategy: Strategy, spec: Spec, data: DataSource) -> list[Trial]:
    """The trials of a search in this process."""
    folder.mkdir()
    with TrialStore(folder / "trials.sqlite", write=True) as store, InlineExecutor(folder) as executor:
        executor.start(spec, data)
        Driver(strategy, "any", make_evaluator(spec), executor, store, 0, lambda event: None).run()
        return store.trials()


def test_the_page_on_evaluators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, *programs = blocks_of("evaluators.md")
    for program in programs:
        compile(program, "evaluators.md", "exec")
    (tmp_path / "my_search.py").write_text(function)
    monkeypatch.syspath_prepend(tmp_path)

    data = as_source(load("digits").subset(128))
    settings = TrainingSettings(filters=4, device="cpu")
    spec = function_spec("my_search:briefly", settings, data.identity())
    trials = searched(tmp_path / "mine", Random(1, OPERATIONS, 10, 1, 0), spec, data)
    measured = {trial.cell.canonical(): trial for trial in trials}
    assert len(measured) == 10
    assert all(trial.done and trial.value("parameters") > 0 for trial in trials), trials
    assert len({trial.accuracy for trial in trials}) > 1

    write_table(tmp_path / "small.csv", trials)
    again = searched(
        tmp_path / "again", Evolution(1, OPERATIONS, 8, 1, 1), table_spec(tmp_path / "small.csv"), data
    )
    assert again
    assert all(trial.accuracy == measured[trial.cell.canonical()].accuracy for trial in again)


def test_the_page_on_strategies() -> None:
    for program in blocks_of("strategies.md"):
        exec(compile(program, "strategies.md", "exec"), {})
