"""Curves, targets and ratios of runs made by hand, whose outcome is known."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compared_runs import record, trial
from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.curves import MOST, at_costs, cost_grid, top_curves
from pnas_fast.compare.statistics import resampling
from pnas_fast.compare.summary import summarise
from pnas_fast.compare.tables import tables_of
from pnas_fast.compare.target import Side, first_reach, median_cost, reach, resampled_means
from pnas_fast.compare.writing import curves_csv, write_comparison
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.store import StoredNote


def accuracy(one: Any) -> float:
    return float(one.accuracy)


def side(grid: list[float], curves: list[list[float]]) -> Side:
    values = np.array(curves)
    return Side(np.array(grid), values, resampled_means(values, resampling(len(values), [1], 200)))


def test_the_best_so_far_by_hand() -> None:
    trials = [trial(n, value) for n, value in enumerate([0.5, 0.3, None, 0.7, 0.6, 0.4])]
    (curves,) = top_curves(trials, [accuracy])
    assert curves[0].tolist() == [0.5, 0.5, 0.5, 0.7, 0.7, 0.7]
    # Five cells have finished with the sixth child.
    assert np.isnan(curves[1, :5]).all()
    assert curves[1, 5] == pytest.approx(0.5)
    assert np.isnan(curves[2]).all()


def test_a_cell_counts_once_by_its_best_trial() -> None:
    trials = [
        trial(n, value, cell) for n, (value, cell) in enumerate([(0.5, 0), (0.9, 1), (0.7, 0), (0.6, 0)])
    ]
    trials += [trial(n, 0.1, n) for n in (4, 5, 6)]
    (curves,) = top_curves(trials, [accuracy])
    assert curves[1, -1] == pytest.approx((0.9 + 0.7 + 3 * 0.1) / 5)
    assert np.isnan(curves[1, 5])


def test_cells_are_chosen_by_validation_and_told_by_test() -> None:
    trials = [trial(0, 0.5, test_accuracy=0.9), trial(1, 0.8, test_accuracy=0.4)]
    (curves,) = top_curves(trials, [lambda one: float(one.value("test_accuracy"))])
    assert curves[0].tolist() == [0.9, 0.4]


def test_equal_accuracies_go_by_loss() -> None:
    trials = [
        trial(0, 0.5, validation_loss=2.0, test_accuracy=0.1),
        trial(1, 0.5, validation_loss=1.0, test_accuracy=0.2),
    ]
    (curves,) = top_curves(trials, [lambda one: float(one.value("test_accuracy"))])
    assert curves[0].tolist() == [0.1, 0.2]


def test_a_run_that_ended_keeps_its_value() -> None:
    costs, curves = [np.array([1.0, 2.0]), np.array([2.0, 5.0])], [np.array([0.1, 0.2]), np.array([0.3, 0.4])]
    grid = cost_grid(costs)
    assert grid.tolist() == [1, 2, 5]
    found = at_costs(grid, costs, curves)
    assert found[0].tolist() == [0.1, 0.2, 0.2]
    assert np.isnan(found[1, 0])
    assert found[1, 1:].tolist() == [0.3, 0.4]


def test_the_first_cost_that_reaches() -> None:
    grid = np.array([1.0, 2.0, 3.0])
    means = np.array([[nan, 0.5, 0.7], [0.1, 0.2, 0.3]])
    assert first_reach(grid, means, 0.5).tolist() == [2, inf]
    assert first_reach(grid, means, np.array([0.6, 0.1])).tolist() == [3, 1]


def test_a_crossing_that_is_known_gives_the_ratio_that_is_known() -> None:
    """The reference is at 0.8 after 2 of its 4 children, the rival after 10."""
    mine = side([1, 2, 3, 4], [[0.1, 0.8, 0.8, 0.8]] * 2)
    theirs = side(list(range(1, 13)), [[0.1] * 9 + [0.8] * 3] * 2)
    found = reach(theirs, mine, 0.8, 0.8)
    assert [found.cost, found.paper, found.fair] == [10, 2.5, 5]
    assert found.paper_interval == (2.5, 2.5)
    assert found.fair_interval == (5.0, 5.0)
    assert [found.median, found.reached, found.runs] == [10, 2, 2]


def test_what_is_not_reached_is_censored() -> None:
    mine = side([1, 2], [[0.5, 0.8], [0.5, 0.8]])
    theirs = side([1, 2, 3], [[0.1, 0.2, 0.3], [0.1, 0.2, 0.9]])
    found = reach(theirs, mine, 0.8, 0.8)
    assert (found.cost, found.reached, found.runs) == (inf, 1, 2)
    assert found.least_fair == 1.5
    assert found.fair_interval == (1.5, inf)
    # A run that reached it is not averaged with one that did not.
    assert found.median == inf
    assert median_cost(np.array([inf, 3.0, 5.0])) == 5
    # Where the reference itself does not come there, nothing can be divided by.
    assert np.isnan(reach(theirs, mine, 0.85, 0.85).fair)


def test_nothing_is_divided_by_trainings_that_took_no_time() -> None:
    mine = side([0, 0], [[0.5, 0.8], [0.5, 0.8]])
    found = reach(side([0, 2], [[0.5, 0.8]] * 2), mine, 0.8, 0.8)
    assert np.isnan([found.paper, found.fair]).all()


def test_the_target_table_of_runs_made_by_hand() -> None:
    """Progressive is at 0.9 after 3 children, random after 6 of 8, evolution never."""
    runs = [record("progressive", [0.5, 0.6, 0.9, 0.8], seed) for seed in range(3)]
    runs += [record("random", [0.5] * 5 + [0.9, 0.1, 0.1], seed) for seed in range(3)]
    runs += [record("evolution", [0.5] * 7 + [0.7], seed) for seed in range(3)]
    summary = summarise(Comparison(runs), own=0.6)
    (end, *_), own = summary["targets"], summary["targets"][-1]
    assert (end["title"], end["most"], end["value"]) == ("progressive's end", 1, pytest.approx(0.9))
    cells = end["axes"]["cells"]
    assert cells["random"]["cost"] == 6
    assert cells["random"]["ratio"] == 2
    assert cells["random"]["ratio_to_budget"] == 1.5
    assert cells["random"]["ratio_interval"] == [2, 2]
    assert cells["evolution"]["cost"] is None
    assert cells["evolution"]["least_ratio"] == pytest.approx(8 / 3)
    assert cells["evolution"]["reached"] == 0
    assert end["axes"]["images"]["random"]["cost"] == 60
    assert end["axes"]["seconds"]["random"]["cost"] == 12
    assert own["title"] == "your own"
    assert own["axes"]["cells"]["progressive"]["cost"] == 2
    assert own["axes"]["cells"]["evolution"]["cost"] == 8
    tests = {(one["most"], one["other"]): one for one in summary["tests"]}
    # Random ends at the same value, so that nothing can be told.
    assert tests[1, "random"]["p"] == 1
    assert tests[1, "random"]["improvement"] == 0.5
    assert tests[1, "evolution"]["p"] == pytest.approx(0.1)
    assert tests[1, "evolution"]["holm"] == pytest.approx(0.2)


def test_parts_of_the_way_are_between_the_ends() -> None:
    runs = [record("progressive", [0.5, 0.9]), record("random", [0.5, 0.5])]
    targets = summarise(Comparison(runs))["targets"]
    assert [one["value"] for one in targets if one["is_way"]] == pytest.approx([0.6, 0.7, 0.8])


def test_runs_of_very_different_lengths_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    """Random has never had five cells, nor anybody 25; one cell costs nothing that is known."""
    runs = [record("progressive", [0.5, 0.6, 0.7, 0.8, 0.9, 0.4]), record("random", [0.5, None, 0.7])]
    summary = write_comparison(tmp_path, Comparison(runs), None)
    assert [(one["most"], one["title"]) for one in summary["targets"] if not one["is_way"]] == [
        (1, "progressive's end"),
        (5, "progressive's end"),
    ]
    (five,) = [one for one in summary["targets"] if one["most"] == 5]
    assert five["axes"]["cells"]["random"]["cost"] is None
    assert summary["strategies"]["random"]["accuracy"]["validation"]["5"]["end"]["mean"] is None
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert "best 5 cells" in (tmp_path / "compare.html").read_text()


def test_the_final_choice_is_told_beside_the_picks_and_counts_nowhere_else() -> None:
    run = record("random", [0.5, 0.7], finalists=1, final_replicas=2)
    proposal = Proposal(run.trials[1].cell, 1, 1, {"final": 1})
    finals = [
        Trial(2 + n, replace(proposal, replica=1 + n), Measurement("done", {"accuracy": value}))
        for n, value in enumerate([0.6, 0.62])
    ]
    assert all(one.proposal.is_final for one in finals)
    summary = summarise(Comparison([replace(run, finals=finals)]))
    random = summary["strategies"]["random"]
    assert random["final"]["mean"] == pytest.approx(0.61)
    assert random["final"]["measure"] == "validation"
    assert random["trained"] == 2
    (picks,) = [table for table in tables_of(summary) if table.name == "picks"]
    assert picks.columns[-1] == "final"
    assert summarise(Comparison([run]))["strategies"]["random"]["final"] is None


def test_a_single_run_has_no_interval() -> None:
    summary = summarise(Comparison([record("progressive", [0.5, 0.9]), record("random", [0.5, 0.5])]))
    spread = summary["strategies"]["random"]["accuracy"]["validation"]["1"]["end"]
    assert spread == {"mean": 0.5, "error": None, "interval": None, "values": [0.5]}
    assert summary["targets"][0]["axes"]["cells"]["random"]["ratio_interval"] is None


def test_seconds_of_the_strategy_count_before_the_next_child() -> None:
    notes = [StoredNote("level", 2, {"surrogate_seconds": 5.0}), StoredNote("drained", 2, {"waited": 9.0})]
    comparison = Comparison([record("progressive", [0.5, 0.6, 0.7], notes=notes)])
    costs = comparison.groups[0].runs[0].costs
    assert costs["seconds"].tolist() == [2, 4, 11]
    assert costs["images"].tolist() == [10, 20, 30]


def test_rank_correlations_are_averaged_over_what_surrogates_noted() -> None:
    notes = [StoredNote("level", 1, {"rho_before": None}), StoredNote("level", 2, {"rho_before": 0.25})]
    notes += [StoredNote("round", 3, {"rho": 0.75})]
    found = Comparison([record("progressive", [0.5, 0.6, 0.7], notes=notes), record("random", [0.5])])
    assert [group.runs[0].rho for group in found.groups] == [0.5, None]


def test_every_point_is_in_the_csv() -> None:
    lines = curves_csv(Comparison([record("random", [0.5, None, 0.7])])).splitlines()
    assert lines[0].split(",")[:5] == ["strategy", "seed", "cells", "images", "seconds"]
    assert lines[3].split(",")[:6] == ["random", "0", "3", "30", "6.000", "0.700000"]
    assert len(lines) == 4


def test_what_cannot_be_compared_is_refused_in_a_line() -> None:
    with pytest.raises(RunError, match="random with seed 0, as random-0 is"):
        Comparison([record("random", [0.5]), record("random", [0.6])])
    with pytest.raises(RunError, match="no child has finished yet"):
        Comparison([record("random", [None])])
    with pytest.raises(RunError, match="no run to compare"):
        Comparison([])


def test_children_that_differ_are_told() -> None:
    runs = [record("progressive", [0.5], epochs=3), record("random", [0.5], filters=16)]
    first = summarise(Comparison(runs))["rigour"][0]
    assert first["holds"] is False
    assert "epochs" in first["found"]
    assert "filters" in first["found"]


def test_a_strategy_of_another_version_is_compared_too() -> None:
    groups = Comparison([record("mine", [0.5]), record("random", [0.5])]).groups
    assert [group.strategy for group in groups] == ["random", "mine"]
    assert len(MOST) == 3
