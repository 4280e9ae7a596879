"""What the pages of docs/ show is what happens."""

import re
from pathlib import Path

import pytest

from pnas_fast.search.result import SearchResult


def blocks_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_page_on_evaluators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, *programs = blocks_of("evaluators.md")
    (tmp_path / "my_search.py").write_text(function)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for program in programs:
        exec(compile(program, "evaluators.md", "exec"), {})

    mine = SearchResult.load(tmp_path / "runs" / "mine").record.trials
    assert all(trial.done and trial.value("parameters") > 0 for trial in mine), mine
    measured = {trial.cell.canonical(): trial.accuracy for trial in mine}
    assert len(measured) == 10
    assert len(set(measured.values())) > 1
    again = SearchResult.load(tmp_path / "runs" / "again").record.trials
    assert again
    assert all(trial.accuracy == measured[trial.cell.canonical()] for trial in again)


def test_the_page_on_strategies() -> None:
    for program in blocks_of("strategies.md"):
        exec(compile(program, "strategies.md", "exec"), {})


def test_the_page_on_tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pnas_fast[tensorboard] is not installed")
    monkeypatch.chdir(tmp_path)
    (program,) = blocks_of("tracking.md")
    exec(compile(program, "tracking.md", "exec"), {})
    trials = SearchResult.load(tmp_path / "runs" / "mine").record.trials
    (file,) = (tmp_path / "runs" / "mine" / "tracking" / "tensorboard").glob("*/events.*")
    text = file.read_bytes()
    assert all(f"`{trial.cell}`".encode() in text for trial in trials), len(trials)
    figures = {path.stem for path in (tmp_path / "runs" / "mine" / "tracking" / "figures").glob("*.png")}
    assert {"cell_1", "progress"} <= figures
    assert all(f"figures/{name}".encode() in text for name in figures)
