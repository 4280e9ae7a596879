"""What the page of each strategy has of its own, and that any other strategy's run has a page."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pnas_fast.candidates import one_block_cells
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.report.lineage import draw_lineage, line_of
from pnas_fast.report.rounds import draw_rounds
from pnas_fast.report.strategies import page_of
from pnas_fast.report.updates import draw_updates, updates_of
from pnas_fast.report.view import RunView
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import StoredNote
from pnas_fast.space import OPERATIONS, Cell
from report_runs import distinct_cells, random_measurement, read_page, write_run

pytestmark = pytest.mark.slow

COMMON = {
    "header",
    "cells",
    "search",
    "cost",
    "operations",
    "curves",
    "trials",
    "time",
    "configuration",
    "files",
}

LINE = [
    "0:sep3x3+1:identity,0:sep3x3+1:sep5x5",
    "0:sep3x3+1:identity,0:sep3x3+1:sep7x7",
    "0:sep3x3+1:identity,0:max_pool3x3+1:sep7x7",
]


def flat_run(folder: Path, strategy: str, size: int = 12, planned: int = 12, **note: float) -> Path:
    """A run of cells of one to three blocks, without levels."""
    generator = random.Random(4)
    texts = [text for blocks in (3, 1, 2) for text in distinct_cells(blocks, size // 3, generator)]
    trials = [
        (Proposal(Cell.parse(text), 2, note=note), random_measurement(number, False, generator))
        for number, text in enumerate(texts)
    ]
    drained = [("drained", size, {"workers": 2, "waited": 4.0})]
    return write_run(folder, {"strategy": strategy, "budget": planned}, trials, drained, strategy)


@pytest.mark.parametrize(
    "strategy",
    ["random", "evolution", "controller", "bananas", "mine", "../progressive", "__init__", "", "<b>"],
)
def test_run_without_levels_has_the_common_sections(tmp_path: Path, strategy: str) -> None:
    page = read_page(flat_run(tmp_path / "run", strategy, size=24, planned=24))
    assert set(page.sections) == COMMON
    assert [row[0] for row in page.body_rows("time")] == ["whole search"]
    assert "level" not in page.sections["trials"]
    assert {row[3] for row in page.table["rows"]} == {1, 2, 3}
    assert "Unfinished" not in page.text


def test_unfinished_run_says_how_many_trials_are_left(tmp_path: Path) -> None:
    page = read_page(flat_run(tmp_path / "run", "random", planned=1160))
    assert "Unfinished: 12 of 1,160 children so far." in page.text


def test_every_file_of_a_strategy_is_its_page() -> None:
    titles = {
        name: page_of(name).title
        for name in ("progressive", "random", "evolution", "controller", "local", "bananas", "mine")
    }
    assert len(set(titles.values())) == len(titles)


def evolved(accuracies: list[float], parents: list[Any], texts: list[str] = LINE) -> RunView:
    trials = [
        Trial(
            number,
            Proposal(Cell.parse(text), 2, note={} if parent is None else {"parent": parent}),
            Measurement("done", {"accuracy": accuracy}),
        )
        for number, (text, accuracy, parent) in enumerate(zip(texts, accuracies, parents, strict=True))
    ]
    return RunView(RunRecord(Path(), {"strategy": "evolution"}, trials, []))


def test_line_of_parents_goes_back_to_the_first() -> None:
    view = evolved([0.5, 0.7, 0.65], [None, 0, 1])
    line = line_of(view, view.trials[2])
    assert [ancestor.trial.number for ancestor in line] == [0, 1, 2]
    assert [ancestor.gain for ancestor in line] == [None, pytest.approx(0.2), pytest.approx(-0.05)]
    assert [ancestor.changed for ancestor in line] == [
        "",
        "0:sep3x3+1:sep5x5 → 0:sep3x3+1:sep7x7",
        "0:sep3x3+1:sep7x7 → 0:max_pool3x3+1:sep7x7",
    ]
    (axes,) = draw_lineage(view).axes
    points = [np.column_stack([line.get_xdata(), line.get_ydata()]).tolist() for line in axes.lines]
    assert [[0.0, 0.5], [1.0, 0.7]] in points


@pytest.mark.parametrize("parents", [[0, 1, 2], [2, 2, 1], [None, "0", 1], [None, 99, 1], [None, -1, 1.5]])
def test_line_of_parents_ends_whatever_a_note_says(parents: list[Any]) -> None:
    view = evolved([0.5, 0.7, 0.65], parents)
    assert line_of(view, view.trials[2])[-1].trial.number == 2
    assert len(line_of(view, view.trials[2])) <= 3


@pytest.mark.parametrize("strategy", ["local", "bananas"])
def test_a_search_of_a_whole_space_is_finished_whatever_its_budget(tmp_path: Path, strategy: str) -> None:
    cells = [Cell.from_codes(codes) for codes in one_block_cells(OPERATIONS[:1])]
    trials = [(Proposal(cell, 2), Measurement("done", {"accuracy": 0.5})) for cell in cells]
    config = {"strategy": strategy, "budget": 9, "blocks": 1, "operations": list(OPERATIONS[:1])}
    for size, unfinished in ((3, ""), (2, "Unfinished: 2 of 9 children so far.")):
        folder = write_run(tmp_path / str(size), config, trials[:size], strategy=strategy)
        assert page_of(strategy).unfinished(RunView(RunRecord.load(folder))) == unfinished


@pytest.mark.parametrize("planned", [{}, {"blocks": 9}, {"blocks": "1", "operations": ["sep3x3"]}])
def test_how_far_a_search_is_does_not_depend_on_a_sound_configuration(planned: dict[str, Any]) -> None:
    record = RunRecord(Path(), {"strategy": "local", "budget": 9, "operations": [], **planned}, [], [])
    assert page_of("local").unfinished(RunView(record)) == "Unfinished: 0 of 9 children so far."


def test_bananas_shows_how_well_each_round_was_predicted(tmp_path: Path) -> None:
    generator = random.Random(1)
    trials = [
        (Proposal(Cell.parse(text), 2, note={"parent": 0} if number else {}), measurement)
        for number, text in enumerate(distinct_cells(2, 30, generator))
        for measurement in [random_measurement(number, False, generator)]
    ]
    rhos: list[Any] = [None, 0.4, 0.2]
    notes = [
        ("round", end, {"turn": turn, "rho": rho, "strategy_seconds": 2.0 + turn})
        for turn, (end, rho) in enumerate(zip((10, 20, 30), rhos, strict=True))
    ]
    folder = write_run(tmp_path / "run", {"strategy": "bananas", "budget": 30}, trials, notes, "bananas")
    page = read_page(folder)
    assert set(page.sections) == COMMON - {"time"} | {"rounds", "lineage"}
    assert "3 rounds; choosing a round's children took 3.0 s on average" in page.sections["rounds"]
    assert "9.0 s" in page.sections["header"]
    assert "0.30" in page.sections["header"]
    (axes,) = draw_rounds(RunView(RunRecord.load(folder))).axes
    points = [np.column_stack([line.get_xdata(), line.get_ydata()]).tolist() for line in axes.lines]
    assert [[19, 0.4], [29, 0.2]] in points
    assert [[19, 0.4], [29, pytest.approx(0.3)]] in points
    assert (folder / "figures" / "rounds.svg").is_file()


@pytest.mark.parametrize("values", [{}, {"rho": "0.5"}, {"rho": None, "strategy_seconds": None}])
def test_rounds_without_a_rank_correlation_have_no_section(tmp_path: Path, values: dict[str, Any]) -> None:
    trials = [(Proposal(Cell.parse(LINE[0]), 2), Measurement("done", {"accuracy": 0.5}))]
    notes = [("round", 1, values)]
    page = read_page(write_run(tmp_path / "run", {"strategy": "bananas"}, trials, notes, "bananas"))
    assert "rounds" not in page.sections


def test_evolution_shows_where_the_best_cell_came_from(tmp_path: Path) -> None:
    trials = [
        (Proposal(Cell.parse(text), 2, note=note), Measurement("done", {"accuracy": accuracy}))
        for text, note, accuracy in zip(
            LINE, [{}, {"parent": 0}, {"parent": 1}], [0.5, 0.6, 0.9], strict=True
        )
    ]
    page = read_page(write_run(tmp_path / "run", {"strategy": "evolution"}, trials, strategy="evolution"))
    rows = page.body_rows("lineage")
    assert [row[:3] for row in rows] == [
        ["2", "90.00 %", "+30.00 %"],
        ["1", "60.00 %", "+10.00 %"],
        ["0", "50.00 %", "–"],
    ]
    assert [row[3] for row in rows] == LINE[::-1]
    assert rows[-1][4] == "drawn at random"
    assert (tmp_path / "run" / "figures" / "lineage.svg").is_file()


def test_a_controller_shows_how_its_policy_learned(tmp_path: Path) -> None:
    notes = [
        ("update", 20, {"update": 1, "entropy": 33.9, "baseline": 0.5, "mean_reward": 0.5, "distinct": 20}),
        ("update", 40, {"update": 2, "entropy": 21.24, "baseline": 0.5, "mean_reward": 0.6, "distinct": 31}),
    ]
    trials = [(Proposal(Cell.parse(LINE[0]), 2), Measurement("done", {"accuracy": 0.5}))]
    folder = write_run(tmp_path / "run", {"strategy": "controller"}, trials, notes, "controller")
    page = read_page(folder)
    assert "updates" in page.sections
    assert "21.2 nats 33.9 before it learned" in page.sections["header"]
    assert (folder / "figures" / "updates.svg").is_file()


@pytest.mark.parametrize("narrow", [False, True])
def test_updates_are_drawn_whatever_their_notes_say(narrow: bool) -> None:
    values = [0.5, None, "0.5", 1e308, float("nan"), -3.0, 0, True, [1]]
    notes = [
        StoredNote("update", number, {"entropy": entropy, "mean_reward": reward, "baseline": reward})
        for number, (entropy, reward) in enumerate((a, b) for a in values for b in values)
    ]
    for some in (notes, notes[:1], notes[1:2], [*notes, StoredNote("update", 99, {"entropy": 1.0})]):
        view = RunView(RunRecord(Path(), {"strategy": "controller"}, [], some))
        axes = draw_updates(view, narrow).axes
        assert [len(one.lines) for one in axes] == [2, 1]
        assert len(axes[1].lines[0].get_ydata()) == len(updates_of(view))
        drawn = np.concatenate([np.asarray(line.get_ydata(), float) for one in axes for line in one.lines])
        assert np.isfinite(drawn).all()
