"""All trials in the page: the table's data, the CSV, dots that name their trial, standard errors, curves."""

import csv
import io
import json
import random
import re
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.report.curves import curve_names, draw_curves
from pnas_fast.report.dots import plot_dots
from pnas_fast.report.page import write_report
from pnas_fast.report.svg import report_style, to_svg
from pnas_fast.report.view import RunView
from pnas_fast.runs.record import RunRecord
from pnas_fast.space import Cell
from report_runs import (
    HOSTILE,
    VALIDATION_IMAGES,
    distinct_cells,
    make_run,
    random_measurement,
    read_page,
    write_run,
)

pytestmark = pytest.mark.slow

SMALL = "0:identity+1:sep3x3"


def proposal(text: str = SMALL, budget: int = 2, replica: int = 0, **note: float) -> Proposal:
    return Proposal(Cell.parse(text), budget, replica, note)


def done(**values: float) -> Measurement:
    return Measurement("done", values)


def view_of(*trials: tuple[Proposal, Measurement], **config: Any) -> RunView:
    numbered = [Trial(number, *pair) for number, pair in enumerate(trials)]
    return RunView(RunRecord(Path(), config, numbered, []))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trials") / "run"
    write_report(make_run(folder, [40, 9]))
    return folder


def test_table_holds_every_trial_the_best_first(run: Path) -> None:
    page, record = read_page(run), RunRecord.load(run)
    rows = page.table["rows"]
    assert sorted(row[-1] for row in rows) == [trial.number for trial in record.trials]
    assert [row[0] for row in rows] == [*range(1, len(record.done) + 1), *[None] * len(record.failed)]
    assert [row[2] for row in rows[: len(record.done)]] == [str(trial.cell) for trial in record.ranked]
    for row in rows:
        trial = record.trials[row[-1]]
        accuracy, error, failure = row[1]
        assert failure == trial.measurement.error
        assert error is None
        assert (accuracy is None) == (not trial.done)
        assert trial.done is False or accuracy == pytest.approx(trial.accuracy, abs=1e-6)
        assert row[3:7] == [
            trial.proposal.note["level"],
            trial.value("parameters"),
            trial.value("multiply_adds"),
            pytest.approx(trial.value("seconds"), rel=1e-5),
        ]


def test_first_rows_need_no_script(run: Path) -> None:
    page, record = read_page(run), RunRecord.load(run)
    rows = page.body_rows("trials")
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 21)]
    assert [row[1] for row in rows] == [f"{100 * trial.accuracy:.2f} %" for trial in record.ranked[:20]]
    assert [row[2] for row in rows] == [str(trial.cell) for trial in record.ranked[:20]]


def test_csv_holds_all_that_was_measured(run: Path) -> None:
    record = RunRecord.load(run)
    text = (run / "trials.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["number"]) for row in rows] == [trial.number for trial in record.trials]
    for row, trial in zip(rows, record.trials, strict=True):
        assert row["cell"] == str(trial.cell)
        assert row["status"] == trial.measurement.status
        assert row["error"] == (trial.measurement.error or "")
        assert float(row["accuracy"] or nan) == pytest.approx(trial.accuracy, nan_ok=True, abs=0)
        for name, value in trial.measurement.values.items():
            assert float(row[name]) == value
        assert float(row["note.predicted"] or nan) == pytest.approx(
            trial.proposal.note.get("predicted", nan), nan_ok=True, abs=0
        )
    assert "." not in rows[0]["parameters"]


def test_repeated_proposals_are_listed_and_count_once(tmp_path: Path) -> None:
    trials = [(proposal(), done(accuracy=0.5)), (proposal("0:sep3x3+1:identity"), done(accuracy=0.75))]
    trials += [
        (proposal("1:sep3x3+0:identity"), done(accuracy=0.9)),
        (proposal(budget=4), done(accuracy=0.8)),
    ]
    page = read_page(write_run(tmp_path / "run", {}, trials, strategy="random"))
    assert [(row[-1], row[0]) for row in page.table["rows"]] == [(3, 1), (1, 2), (0, 3), (2, None)]
    assert [column["label"] for column in page.table["columns"]] == [
        "rank", "accuracy", "cell", "blocks", "budget", "number",
    ]  # fmt: skip
    assert "none failed; 1 asked for again" in page.sections["header"]


def test_what_a_users_function_returns_has_a_column_and_what_is_missing_has_none(tmp_path: Path) -> None:
    name = f"$x^{HOSTILE}"
    trials = [
        (proposal(text), done(accuracy=0.1 * number, latency_ms=3.5 + number, **{name: 1e-7 * number}))
        for number, text in enumerate(distinct_cells(2, 9, random.Random(1)))
    ]
    page = read_page(write_run(tmp_path / "run", {"strategy": "random"}, trials, strategy="random"))
    labels = [column["label"] for column in page.table["columns"]]
    assert labels == ["rank", "accuracy", "cell", "blocks", name, "latency_ms", "number"]
    assert page.body_rows("trials")[0][4:6] == ["8e-07", "11.5"]
    assert set(page.sections) == {
        "header", "cells", "search", "cost", "operations", "trials", "configuration", "files",
    }  # fmt: skip
    assert "multiply-adds" not in page.sections["cost"] + page.sections["cells"]
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} >= {"cost", "progress"}


def test_data_of_the_table_ends_no_script(tmp_path: Path) -> None:
    trials = [(proposal(), Measurement("failed", {}, HOSTILE))]
    source = write_report(write_run(tmp_path / "run", {}, trials)).read_text(encoding="utf-8")
    data = source.partition('id="trial-data">')[2].partition("</script>")[0]
    assert not set("<>&") & set(data)
    assert json.loads(data)["rows"][0][1] == [None, None, HOSTILE]


@pytest.mark.parametrize(
    ("config", "values", "expected"),
    [
        ({"validation_images": 400}, {}, sqrt(0.9 * 0.1 / 400)),
        ({}, {"validation_images": 100.0}, 0.03),
        ({}, {}, None),
        ({"validation_images": "many"}, {"validation_images": nan}, None),
        ({"validation_images": 0}, {}, None),
    ],
)
def test_standard_error_is_binomial(
    config: dict[str, Any], values: dict[str, float], expected: float | None
) -> None:
    view = view_of((proposal(), done(accuracy=0.9, **values)), **config)
    assert view.standard_error(view.trials[0]) == (None if expected is None else pytest.approx(expected))


def test_standard_error_of_no_share_is_unknown() -> None:
    for accuracy in (-1.0, 1.5, nan):
        view = view_of((proposal(), done(accuracy=accuracy)), validation_images=100)
        assert view.standard_error(view.trials[0]) is None


def test_standard_error_stands_wherever_an_accuracy_does(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [12, 8], failures=0.0, validation_images=VALIDATION_IMAGES)
    page, best = read_page(folder), RunRecord.load(folder).ranked[0]
    error = 100 * sqrt(best.accuracy * (1 - best.accuracy) / VALIDATION_IMAGES)
    written = f"{100 * best.accuracy:.2f} ± {error:.2f} %"
    assert f"{100 * best.accuracy:.1f} % ± {error:.1f} %" in page.sections["header"]
    for section in ("cells", "levels", "cost", "trials"):
        assert written in page.sections[section], section
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        row = list(csv.DictReader(file))[best.number]
    assert float(row["standard_error"]) == pytest.approx(error / 100)


@pytest.mark.parametrize("marker", ["o", "s", "^", "D", "P", "v", "x"])
@pytest.mark.parametrize("fill", ["full", "none"])
def test_every_dot_has_its_trial_and_its_place(marker: str, fill: str) -> None:
    generator = np.random.default_rng(7)
    x, y = generator.random((2, 5))
    trials = [Trial(number, proposal(), done()) for number in (3, 1, 4, 15, 9)]
    with report_style():
        figure = Figure(figsize=(4, 3))
        axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1))
        plot_dots(axes, trials, x, y, marker, fillstyle=fill, color="#123456")
        plot_dots(axes, [], [], [], marker)
        svg = to_svg(figure, "dots", "Dots").svg
        expected = axes.transData.transform(np.column_stack([x, y])) * 72 / figure.dpi
    ((numbers, outline),) = re.findall(r'<path class="dots" data-trials="([\d ]+)" d="([^"]+)"', svg)
    assert numbers == "3 1 4 15 9"
    places = np.array(re.findall(r"M(\S+) (-?[\d.]+)", outline), dtype=float)
    assert places == pytest.approx(np.column_stack([expected[:, 0], 3 * 72 - expected[:, 1]]), abs=0.01)


def test_learning_curves_survive_what_is_not_finite() -> None:
    curves = [(2.0, 1.0, 0.5), (2.0, nan, float("inf")), (nan, nan), (3.0,), ()]
    trials = [
        (proposal(text), Measurement("done", {"accuracy": 0.5}, None, {"loss": curve, "$a_b": (1.0, 2.0)}))
        for text, curve in zip(distinct_cells(1, 5, random.Random(2)), curves, strict=True)
    ]
    view = view_of(*trials)
    assert curve_names(view) == ["loss", "$a_b"]
    for narrow in (False, True):
        with report_style():
            figure = draw_curves(view, narrow)
            to_svg(figure, "curves", "Curves")
        loss, other = figure.axes
        heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in loss.lines])
        assert len(heights) > 0
        assert np.isfinite(heights).all()
        assert other.get_ylabel() == "$a b"


@pytest.mark.parametrize("strategy", ["progressive", "evolution"])
def test_numbers_of_any_size_have_a_page(tmp_path: Path, strategy: str) -> None:
    sizes = [1e308, -1e308, 1e31, float(2**63), 5e-324, 0.0, -5.0, 12.0]
    names = [
        "parameters", "multiply_adds", "latency_ms", "seconds", "images_seen", "images_per_second", "loss",
        "evaluation_seconds", "memory", "validation_loss", "validation_images", "mine",
    ]  # fmt: skip
    generator = random.Random(strategy)
    trials = []
    for number, text in enumerate(distinct_cells(2, 16, generator)):
        values = {name: generator.choice(sizes) for name in names} | {"accuracy": 0.5, "waiting_seconds": 1.0}
        curve = tuple(generator.choice(sizes) for _ in range(4))
        note: dict[str, float | int | str] = {
            "level": 2,
            "parent": number - 1,
            "predicted": generator.choice(sizes),
        }
        measured = Measurement("done", values, None, {"loss": curve})
        trials.append((Proposal(Cell.parse(text), 2, 0, note), measured))
    after = {str(number): generator.choice(sizes) for number in range(16)}
    level: dict[str, Any] = {"level": 2, "candidates": 1e308, "rho_before": 1e308, "surrogate_seconds": 2.0}
    notes = [
        ("level", 16, level | {"predicted_after": after}),
        ("drained", 16, {"workers": 2, "waited": 3.0}),
    ]
    page = read_page(write_run(tmp_path / "run", {"strategy": strategy}, trials, notes, strategy))
    assert {"search", "cost", "curves", "trials", "time"} <= set(page.sections)
    assert len(page.table["rows"]) == 16


def test_curves_of_one_epoch_are_none(tmp_path: Path) -> None:
    measured = random_measurement(0, False, random.Random(0))
    measured = Measurement("done", measured.values, None, {"loss": (1.0,)})
    page = read_page(write_run(tmp_path / "run", {}, [(proposal(level=1), measured)]))
    assert "curves" not in page.sections
    assert "search" in page.sections
