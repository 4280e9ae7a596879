"""The gate on quality: green as it is, red with a surrogate that is broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import quality
from pnas_fast.evaluation.table import write_table
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.strategies.exhaustive import Exhaustive
from pnas_fast.surrogate import growing
from strategy_runs import true_accuracy, uniform

pytestmark = pytest.mark.slow

OPERATIONS = ["sep3x3", "identity", "avg_pool3x3", "max_pool3x3"]


def measured(proposal: Proposal) -> Measurement:
    """Larger cells are better ones, so that the best are found by growing."""
    noise = 0.001 * (uniform("noise", str(proposal.cell), proposal.replica) - 0.5)
    return Measurement(
        "done", {"accuracy": true_accuracy(proposal.cell) / 3 + len(proposal.cell) / 5 + noise}
    )


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a made-up table of 2,178 cells of two blocks, without figures yet."""
    cells = [proposal.cell for proposal in Exhaustive(2, OPERATIONS, 0, 1, 1, seed=0).ask()]
    proposals = [Proposal(cell, 1, replica) for cell in cells for replica in range(2)]
    trials = [Trial(number, proposal, measured(proposal)) for number, proposal in enumerate(proposals)]
    write_table(tmp_path / "made-up.csv", trials)
    path = tmp_path / "quality.json"
    content = {
        "table": "made-up.csv", "operations": OPERATIONS, "blocks": 2, "epochs": 1, "beam": 39,
        "budget": 60,
        "repeats": 3, "margin": 0.25, "children": {"progressive": None, "random": None},
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(quality, "BASELINE", path)
    return path


def test_a_broken_surrogate_turns_it_red(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quality.main(["--update"]) == 0
    children = json.loads(baseline.read_text(encoding="utf-8"))["children"]
    assert children["progressive"] is not None
    assert quality.main([]) == 0
    monkeypatch.setattr(growing, "upper_confidence", lambda scores, kappa: -np.mean(scores, axis=0))
    capsys.readouterr()
    assert quality.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench/quality.py: worse: progressive: ")
    assert line.endswith("allowed are 25 % more")


def test_complaints_know_margins_and_what_never_came_there() -> None:
    baseline = quality.Baseline("t", [], 2, 1, 45, 100, 5, 0.25, {"a": 40, "b": None, "c": 8})
    assert quality.complaints(baseline, {"a": 50, "b": None, "c": 10}) == []
    assert quality.complaints(baseline, {"a": 51, "b": 3, "c": None}) == [
        "a: 51 children until the best 1 % of cells, baseline 40, allowed are 25 % more",
        "c: more than 100 children until the best 1 % of cells, baseline 8, allowed are 25 % more",
    ]


def test_a_baseline_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "BASELINE", tmp_path / "quality.json")
    assert quality.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
