"""The final choice: who is trained again, what decides, and that the search hears nothing of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import user_functions
from faulty import Source
from pnas_fast import SearchConfig, run_search
from pnas_fast.data import DataSet, as_source
from pnas_fast.evaluation.train import train_spec
from pnas_fast.network import Genotype
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.report.page import write_report
from pnas_fast.runs.choice import choose, planned_finals
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.weights import load_child
from pnas_fast.search.result import SearchResult
from pnas_fast.space import OPERATIONS, Cell
from pnas_fast.strategies.evolution import Evolution
from pnas_fast.strategies.finalists import FIRST_REPLICA, Finalists
from report_runs import read_page
from strategy_runs import drive

A, B, C = (Cell.parse(f"0:identity+1:{name}") for name in ("identity", "max_pool3x3", "sep3x3"))


def trial(number: int, cell: Cell, accuracy: float | None, rank: int = 0, **values: float) -> Trial:
    """Of the search for rank 0, else a final training of a finalist."""
    note = {"final": rank} if rank else {}
    if accuracy is None:
        return Trial(number, Proposal(cell, 2, number, note), Measurement("failed", {}, "it diverged"))
    measured = {"accuracy": accuracy, "validation_images": 400.0, **values}
    return Trial(number, Proposal(cell, 2, number, note), Measurement("done", measured))


SEARCH = [trial(0, A, 0.9), trial(1, B, 0.8), trial(2, C, 0.7), trial(3, A, 0.95)]


def test_the_best_mean_is_chosen_whoever_led_before() -> None:
    finals = [trial(4, A, 0.7, 1), trial(5, A, 0.6, 1), trial(6, B, 0.75, 2), trial(7, B, 0.65, 2)]
    choice = choose(SEARCH, finals, 2, 2)
    assert choice is not None
    assert choice.chosen.cell == B.canonical()
    assert choice.chosen.mean() == pytest.approx(0.7)
    assert [finalist.found.number for finalist in choice.finalists] == [1, 3]
    assert choice.chosen.best.number == 6
    assert choice.optimism == pytest.approx(0.95 - 0.65)


def test_ties_go_by_mean_loss_and_then_by_who_led() -> None:
    finals = [trial(4, A, 0.5, 1, validation_loss=2.0), trial(5, B, 0.5, 2, validation_loss=1.0)]
    choice = choose(SEARCH, finals, 2, 1)
    assert choice is not None
    assert choice.chosen.cell == B.canonical()
    choice = choose(SEARCH, [trial(4, A, 0.5, 1), trial(5, B, 0.5, 2)], 2, 1)
    assert choice is not None
    assert choice.chosen.cell == A.canonical()


def test_nothing_is_chosen_before_all_is_there_nor_by_failures() -> None:
    finals = [trial(4, A, 0.7, 1), trial(5, B, None, 2)]
    assert choose(SEARCH, finals[:1], 2, 1) is None
    assert choose(SEARCH, [], 0, 3) is None
    choice = choose(SEARCH, finals, 2, 1)
    assert choice is not None
    assert [finalist.cell for finalist in choice.finalists] == [A.canonical()]
    assert choose(SEARCH, [trial(4, A, None, 1)], 1, 1) is None
    assert planned_finals(SEARCH, 5, 4) == 12


def test_a_standard_error_counts_trainings_and_images() -> None:
    finals = [trial(4 + index, A, accuracy, 1) for index, accuracy in enumerate((0.6, 0.7, 0.8))]
    choice = choose(SEARCH, finals, 1, 3)
    assert choice is not None
    error = choice.chosen.standard_error("accuracy", "validation_images")
    assert error == pytest.approx(math.sqrt(0.1**2 / 3 + 0.7 * 0.3 / 400))
    assert math.isnan(choice.chosen.standard_error("accuracy", "test_images"))


def test_longer_final_trainings_say_nothing_of_the_search_s_optimism() -> None:
    final = trial(4, A, 0.99, 1)
    choice = choose(SEARCH, [replace(final, proposal=replace(final.proposal, budget=9))], 1, 1)
    assert choice is not None
    assert choice.is_longer
    assert math.isnan(choice.optimism)


def test_a_search_is_the_same_with_and_without_a_final_choice() -> None:
    plain = drive(Evolution(3, OPERATIONS, 60, 2, 3))
    trials = drive(Finalists(Evolution(3, OPERATIONS, 60, 2, 3), 4, 3, 7))
    assert trials[: len(plain)] == plain
    finals = trials[len(plain) :]
    ranked = sorted((trial for trial in plain if trial.done), key=lambda trial: trial.order, reverse=True)
    best = list(dict.fromkeys(trial.cell.canonical() for trial in ranked))[:4]
    assert [trial.cell for trial in finals] == [cell for cell in best for _ in range(3)]
    assert [trial.proposal.replica for trial in finals] == [
        FIRST_REPLICA + replica for replica in range(3)
    ] * 4
    assert {trial.proposal.budget for trial in finals} == {7}


TINY = SearchConfig(
    strategy="random", budget=6, blocks=1, operations=("identity", "max_pool3x3"), filters=4, epochs=1,
    batch=32, device="cpu", workers=2, finalists=2, final_replicas=2,
)  # fmt: skip


def with_tests(shift: int = 0) -> DataSet:
    """Digits with a test part, whose labels may be wrong."""
    data = Source().open()
    labels = (data.validation_labels[:200] + shift) % 10
    return replace(data, test_images=data.validation_images[:200], test_labels=labels)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("runs") / "tested"
    return run_search(TINY, data=as_source(with_tests()), out=folder, progress=False)


def test_a_run_tells_the_chosen_one_s_means_and_keeps_its_weights(run: SearchResult) -> None:
    assert len(run.trials) == 6
    assert len(run.record.finals) == 4
    choice = run.choice
    assert choice is not None
    chosen = choice.chosen
    assert run.best == chosen.cell
    assert run.accuracy == np.mean([trial.accuracy for trial in chosen.finals])
    assert all(trial.value("test_images") == 200 for trial in chosen.finals)
    assert not any("test_accuracy" in trial.measurement.values for trial in run.record.trials)
    assert load_child(run.weights).genotype == Genotype.of(chosen.cell)
    text = str(run)
    assert "on test images" in text
    assert "4 final trainings" in text
    assert "points off" in text
    assert not (run.folder / "children").exists()


def test_wrong_test_labels_change_no_trial_and_no_choice(run: SearchResult, tmp_path: Path) -> None:
    other = run_search(TINY, data=as_source(with_tests(1)), out=tmp_path / "run", progress=False)
    seconds = {"seconds", "evaluation_seconds", "images_per_second", "waiting_seconds"}
    tests = {name for name in run.record.finals[0].measurement.values if name.startswith("test_")}

    def essence(trials: list[Trial], ignored: set[str]) -> list[object]:
        return [
            (t.number, t.proposal, {n: v for n, v in t.measurement.values.items() if n not in ignored})
            for t in trials
        ]

    assert essence(other.record.trials, seconds) == essence(run.record.trials, seconds)
    assert essence(other.record.finals, seconds | tests) == essence(run.record.finals, seconds | tests)
    assert essence(other.record.finals, seconds) != essence(run.record.finals, seconds)
    assert other.best == run.best


def test_a_finished_run_goes_on_to_more_finalists_and_trains_no_child_twice(
    run: SearchResult, tmp_path: Path
) -> None:
    source = as_source(with_tests())
    more = run_search(replace(TINY, finalists=3), data=source, out=run.folder, progress=False)
    assert len(more.record.finals) == 6
    assert more.record.finals[:4] == run.record.finals
    again = run_search(replace(TINY, finalists=3), data=source, out=run.folder, progress=False)
    assert again.best == more.best
    assert again.record.weights_digest == more.record.weights_digest


def test_the_page_shows_the_choice(run: SearchResult) -> None:
    write_report(run.folder)
    page = read_page(run.folder)
    assert "choice" in page.sections
    assert "The final choice" in page.text
    choice = RunRecord.load(run.folder).choice
    assert choice is not None
    assert len(page.body_rows("choice")) == len(choice.finalists)
    assert "Unfinished" not in page.text


def test_without_finalists_the_best_single_training_is_the_result(tmp_path: Path) -> None:
    config = replace(TINY, finalists=0)
    found = run_search(config, evaluator=user_functions.counts, out=tmp_path / "run", progress=False)
    assert found.choice is None
    assert found.accuracy == max(found.trials.accuracy)


def test_a_table_has_no_fresh_trainings_and_so_no_finalists() -> None:
    assert replace(TINY, evaluator="table:some.csv").resolved().finalists == 0
    assert TINY.resolved().finalists == 2
    assert train_spec(TINY, "x") == train_spec(replace(TINY, finalists=0), "x")
