"""The builder of tables: what it has is not trained again, and how it tells differences from noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import table
from pnas_fast.evaluation.table import read_table, write_table
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.config import SearchConfig
from pnas_fast.space import OPERATIONS
from pnas_fast.space.neighbours import draw

SMALL = SearchConfig(
    strategy="exhaustive", blocks=1, operations=("identity",), replicas=2, data="fashion", train_images=64,
    epochs=1, batch=32, filters=4, test_children=True, finalists=0, workers=1, device="cpu",
)  # fmt: skip


def test_what_lies_in_run_or_file_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "FOLDER", tmp_path / "tables")
    monkeypatch.setattr(table, "TABLES", {"small": SMALL})
    assert table.main(["small", "--run", str(tmp_path / "run")]) == 0
    file = tmp_path / "tables" / "small.csv.gz"
    rows = read_table(file)
    assert len(rows) == 3 * 2
    assert {row.proposal.replica for row in rows[:3]} == {0}
    assert set(rows[0].measurement.values) == set(table.VALUES)
    assert "3 cells, 6 trainings" in capsys.readouterr().out

    # From the file alone, without a row of it: only that one is trained.
    write_table(file, rows[:4] + rows[5:])
    assert table.main(["small", "--run", str(tmp_path / "elsewhere")]) == 0
    again = read_table(file)
    assert [row for row in again if row.proposal.key("") != rows[4].proposal.key("")] == rows[:4] + rows[5:]
    assert again[4].accuracy == rows[4].accuracy
    with TrialStore(tmp_path / "elsewhere" / "trials.sqlite") as store:
        taken_over = [trial for trial in store.trials() if set(trial.measurement.values) == set(table.VALUES)]
    assert len(taken_over) == 5
    assert table.main(["small", "--run", str(tmp_path / "none"), "--check", "2"]) == 0
    write_table(file, [replace(row, measurement=_worse(row)) for row in rows])
    assert table.main(["small", "--check", "1"]) == 1


def _worse(trial: Trial) -> Measurement:
    return replace(trial.measurement, values={**trial.measurement.values, "accuracy": -1.0})


@pytest.mark.parametrize(("between", "within"), [(0.02, 0.01), (0.0, 0.02), (0.03, 0.0)])
def test_the_spread_of_cells_is_told_from_that_of_trainings(between: float, within: float) -> None:
    rng = np.random.default_rng(0)
    trials = list[Trial]()
    for cell in {draw(3, OPERATIONS, rng).canonical() for _ in range(2000)}:
        true = 0.7 + between * rng.standard_normal()
        for replica in range(2):
            accuracy = true + within * rng.standard_normal()
            measured = Measurement("done", {"accuracy": accuracy})
            trials.append(Trial(len(trials), Proposal(cell, 2, replica), measured))
    found = table.spread(trials, "accuracy")
    assert found == pytest.approx((between, within), abs=0.003)
