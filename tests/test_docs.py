"""What the pages of docs/ show is what happens."""

import re
import shlex
from pathlib import Path

import pytest

from pnas_fast.export.__main__ import main as export
from pnas_fast.runs.weights import load_child
from pnas_fast.search.command import main as search
from pnas_fast.search.result import SearchResult
from pnas_fast.train.__main__ import main as train


def blocks_of(page: str, language: str = "python") -> list[str]:
    """The blocks of a page in a language."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


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


@pytest.mark.slow
def test_the_page_on_training_tunes_what_a_search_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in blocks_of("training.md", "sh") if "--init" in block]
    find, tune = (shlex.split(line)[3:] for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    small = "--epochs 1 --train-images 64 --device cpu --threads 1"
    few = f"{small} --strategy random --budget 2 --blocks 1 --finalists 0 --workers 1"
    assert search([*find, *few.split()]) == 0
    assert train([*tune, *small.split()]) == 0
    assert "fresh: none" in capsys.readouterr().out
    kept, tuned = (load_child(tmp_path / "runs" / run / "best.safetensors") for run in ("paper", "tuned"))
    assert (kept.genotype, kept.layout) == (tuned.genotype, tuned.layout)
    assert tuned.image_shape == (1, 8, 8)


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


@pytest.mark.slow
def test_the_page_on_objectives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks_of("objectives.md", "sh")
    find, pick = (shlex.split(line)[3:] for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    few = "--preset quick --epochs 1 --train-images 64 --device cpu --workers 1 --blocks 1 --finalists 0"
    assert search([*find, *few.split(), "--operations", "identity,sep3x3,max_pool3x3"]) == 0
    assert export(pick) == 0
    assert "trial " in capsys.readouterr().out
    assert Path("small.onnx").is_file()
    for program in blocks_of("objectives.md"):
        exec(compile(program, "objectives.md", "exec"), {})
    assert "hypervolume 0." in capsys.readouterr().out
