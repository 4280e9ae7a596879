"""The command: on a table, on trainings that are shared, killed and gone on with, and from folders."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pnas_fast.candidates import expand, one_block_cells
from pnas_fast.cli.ending import GO_ON
from pnas_fast.compare import carrying, processes
from pnas_fast.compare.bar import Bar
from pnas_fast.compare.carrying import carry_out, evaluator_identity
from pnas_fast.compare.cli import parse
from pnas_fast.compare.command import main
from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.plan import Planned, nearest_beam
from pnas_fast.compare.rigour import trainings_of
from pnas_fast.compare.saved import saved_plan, settle_plan
from pnas_fast.data import source
from pnas_fast.evaluation.table import write_table
from pnas_fast.protocols import Event, Measurement, Proposal, Told, Trial
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.weights import BEST, load_child
from pnas_fast.search import command as search_command
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.plan import planned_sizes
from pnas_fast.search.sources import cut
from pnas_fast.space import Cell
from strategy_runs import true_accuracy, uniform

OPERATIONS = ("sep3x3", "identity")
BASE = (
    "--operations sep3x3,identity --blocks 2 --epochs 1 --device cpu "
    "--strategies progressive,random,evolution"
)

CHEAP = ["--predictor", "paths"]
"""A surrogate that takes no time, for what does not depend on how well cells are chosen."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells of up to two blocks of two operations, two replicas each."""
    first = one_block_cells(OPERATIONS)
    cells = [Cell.from_codes(row) for codes in (first, expand(first, OPERATIONS).codes) for row in codes]
    trials = list[Trial]()
    for cell in cells:
        for replica in (0, 1):
            noise = 0.02 * (uniform("noise", str(cell), replica) - 0.5)
            values = {
                "accuracy": round(true_accuracy(cell) + noise, 4),
                "test_accuracy": round(true_accuracy(cell) - noise, 4),
                "seconds": float(len(cell)),
                "images_seen": 100,
            }
            trials.append(Trial(len(trials), Proposal(cell, 1, replica), Measurement("done", values)))
    file = tmp_path_factory.mktemp("tables") / "small.csv.gz"
    write_table(file, trials)
    return file


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def options(out: Path, table: Path, *more: str) -> list[str]:
    of_table = ["--evaluator", f"table:{table}", "--budget", "40", "--out", str(out)]
    return [*BASE.split(" "), *of_table, *CHEAP, *more]


def random_alone(out: Path, table: Path) -> list[str]:
    kept = [word for word in options(out, table, "--repeats", "1") if word not in CHEAP]
    return [*kept, "--strategies", "random"]


def accuracies(folder: Path) -> dict[str, list[float]]:
    runs = sorted((folder / "runs").iterdir())
    return {run.name: [trial.accuracy for trial in RunRecord.load(run).trials] for run in runs}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    out = tmp_path_factory.mktemp("compared") / "out"
    assert main(options(out, table, "--repeats", "3", "--target", "0.7")) == 0
    return out


def test_it_leaves_runs_page_figures_points_and_numbers(compared: Path) -> None:
    names = {f"{name}-{repeat}" for name in ("progressive", "random", "evolution") for repeat in range(3)}
    assert {run.name for run in (compared / "runs").iterdir()} == names
    config = json.loads((compared / "runs" / "random-2" / "config.json").read_text())
    assert (config["seed"], config["evaluation_seed"], config["budget"]) == (2, 0, 40)
    assert {file.stem for file in (compared / "figures").iterdir()} == {"cells", "images", "seconds"}
    page = (compared / "compare.html").read_text()
    for text in ("the best 1 % of cells", "Against images", "your own", "Trainings are shared", "8.24"):
        assert text in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="https?:', page)
    rows = (compared / "curves.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(map(len, accuracies(compared).values()))


def test_true_accuracies_ranks_and_regret_are_the_tables(compared: Path, table: Path) -> None:
    summary = json.loads((compared / "summary.json").read_text())
    assert [one["name"] for one in summary["measures"]] == ["true", "test", "validation"]
    assert (summary["table"]["cells"], summary["table"]["replicas"]) == (175, 2)
    best = max(
        true_accuracy(Cell.from_codes(row)) for row in expand(one_block_cells(OPERATIONS), OPERATIONS).codes
    )
    evolution = summary["strategies"]["evolution"]
    picked = evolution["accuracy"]["true"]["1"]["end"]["mean"]
    # Noise of the two replicas is not the same, so the mean over them is not exact.
    assert summary["table"]["best"] == pytest.approx(best, abs=0.02)
    assert evolution["regret_in_table"] == pytest.approx(summary["table"]["best"] - picked)
    assert 0 <= evolution["rank_in_table"] < 0.5


def test_the_beam_comes_near_to_the_budget(compared: Path) -> None:
    config = json.loads((compared / "runs" / "progressive-0" / "config.json").read_text())
    assert config["beam"] == 30
    assert {len(found) for found in accuracies(compared).values()} == {40}


@cache
def trained(beam: int) -> int:
    config = SearchConfig(operations=OPERATIONS, blocks=3, beam=beam)
    return sum(children for *_, children in planned_sizes(config))


@pytest.mark.parametrize(("budget", "children"), [(5, 11), (30, 30), (31, 30), (100, 100), (9000, 4015)])
def test_the_nearest_beam(budget: int, children: int) -> None:
    beam = nearest_beam(SearchConfig(operations=OPERATIONS, blocks=3), budget)
    assert abs(trained(beam) - budget) == min(
        abs(trained(k) - budget) for k in range(1, 4000, 1 if budget < 200 else 50)
    )
    assert abs(trained(beam) - children) <= 1


def test_other_workers_are_not_another_comparison(compared: Path) -> None:
    request = parse(["--out", str(compared), "--workers", "1", "--threads", "2"])
    assert request.plan is not None
    saved = saved_plan(compared)
    assert saved is not None
    assert {config.workers for config in request.plan.configs.values()} == {1}
    settle_plan(compared, request.plan, evaluator_identity(request.plan, source("digits")))
    assert (request.plan.repeats, list(request.plan.configs)) == (saved.repeats, list(saved.configs))


def test_a_budget_that_progressive_cannot_have_is_told_in_a_line(tmp_path: Path) -> None:
    out = f"--out {tmp_path / 'out'} --device cpu"
    notes = parse(f"{out} --strategies progressive,random --budget 100 --blocks 1".split(" ")).notes
    assert notes == [
        "budgets differ: progressive 48, random 100 children at most; progressive's follow from B and K 1"
    ]
    assert parse(f"{out} --strategies progressive,random --budget 200 --blocks 2".split(" ")).notes == []
    # Without a budget the others have progressive's.
    request = parse(f"{out} --strategies progressive,random --beam 7 --blocks 3".split(" "))
    assert request.plan is not None
    assert request.plan.budgets() == {"progressive": 62, "random": 62}


def test_a_comparison_is_told_by_test_images_where_there_are_some(tmp_path: Path) -> None:
    out = f"--out {tmp_path / 'out'} --device cpu"
    for data, tests in (("fashion", True), ("digits", False)):
        request = parse(f"{out} --data {data} --strategies random".split(" "))
        assert request.plan is not None
        assert request.plan.configs["random"].test_children is tests


def test_folders_of_images_of_several_sizes_are_made_one_size(tmp_path: Path) -> None:
    """As a search makes them, whoever asks for the data: what is described, and what is trained on."""
    rng = np.random.default_rng(0)
    for number in range(40):
        part, label, side = ("train", "test")[number % 4 == 3], "ab"[number % 2], 10 + number % 3
        place = tmp_path / "images" / part / label
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(place / f"{number}.png")
    options = (
        f"--data folder:{tmp_path / 'images'} --image-size 8 --cache {tmp_path / 'cache'} "
        "--strategies random --budget 2 --repeats 1 --blocks 1 --operations identity --epochs 1 --batch 8 "
        f"--filters 4 --device cpu --finalists 0 --out {tmp_path / 'compared'}"
    )
    assert main(options.split()) == 0
    (trial, *_) = RunRecord.load(tmp_path / "compared" / "runs" / "random-0").trials
    assert "test_accuracy" in trial.measurement.values
    assert "10 test images" in (tmp_path / "compared" / "summary.json").read_text(encoding="utf-8")


def test_folders_are_compared_as_runs_are(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run) for run in sorted((compared / "runs").iterdir())]
    assert main(["--from", *runs, "--target", "0.7", "--out", str(tmp_path / "out")]) == 0
    for name in ("summary.json", "curves.csv", "compare.html"):
        assert (tmp_path / "out" / name).read_bytes() == (compared / name).read_bytes()
    printed = capsys.readouterr().out
    assert "Children until the target" in printed
    assert "same children: yes: B 2" in printed
    assert max(map(len, printed.splitlines()[:-2])) <= 80


def carried_out(arguments: list[str]) -> list[RunRecord]:
    """The runs that a command line asks for, without tables and page."""
    request = parse(arguments)
    assert request.plan is not None
    config = next(iter(request.plan.configs.values()))
    data = cut(source(config.data), config.train_images)
    request.folder.mkdir(exist_ok=True)
    settle_plan(request.folder, request.plan, evaluator_identity(request.plan, data))
    return carry_out(request.plan, request.folder, data, Console(quiet=True))


def test_a_finished_comparison_is_not_run_again(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = accuracies(compared)
    monkeypatch.setattr(carrying, "Search", None)
    records = carried_out(["--out", str(compared)])
    assert {record.folder.name: [trial.accuracy for trial in record.trials] for record in records} == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--budget 50", "--budget 40 -> 50"),
        ("--repeats 4", "--repeats 3 -> 4"),
        ("--independent", "--independent no -> yes"),
        ("--lag 3", "--lag 16 -> 3"),
        ("--seed 5", "--seed 0 -> 5"),
        (
            "--strategies progressive,random",
            "--strategies progressive,random,evolution -> progressive,random)",
        ),
    ],
)
def test_another_comparison_in_its_folder_is_refused(
    compared: Path, table: Path, more: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options(compared, table, "--repeats", "3"), *more.split(" ")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert said in errors


def test_another_table_in_its_place_is_refused(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.csv.gz"
    mine.write_bytes(table.read_bytes())
    arguments = random_alone(tmp_path / "out", mine)
    carried_out(arguments)
    trials = RunRecord.load(tmp_path / "out" / "runs" / "random-0").trials
    write_table(mine, trials)
    assert main(arguments) == 2
    assert "what the evaluator answers" in capsys.readouterr().err


class StoppedError(BaseException):
    pass


@pytest.mark.parametrize("events", [0, 400])
def test_killed_anywhere_it_goes_on_to_the_same_end(
    compared: Path, table: Path, tmp_path: Path, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "out", 0

    def dies(self: object, event: object) -> None:
        nonlocal seen
        seen += 1
        if seen > events:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "on", dies)
        with pytest.raises(StoppedError):
            carried_out(options(out, table, "--repeats", "2"))
    carried_out(["--out", str(out)])
    whole = accuracies(compared)
    assert accuracies(out) == {name: found for name, found in whole.items() if not name.endswith("-2")}


def test_an_error_of_a_process_is_the_comparisons(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "FEWEST", 2)
    arguments = [*random_alone(tmp_path / "out", table), "--workers", "2", "--epochs", "2", "--repeats", "2"]
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "no measurement of" in errors


BATCH = ("SIGHUP", "SIGTERM", "SIGUSR1", "SIGALRM")


def handlers() -> list[Any]:
    return [signal.getsignal(signal.Signals[name]) for name in BATCH]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_comparison_that_is_asked_to_end_says_to_go_on(
    compared: Path,
    table: Path,
    tmp_path: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, out, told, on = handlers(), tmp_path / "out", 0, Bar.on

    def ask(self: Bar, event: Event) -> None:
        nonlocal told
        on(self, event)
        told += isinstance(event, Told)
        if told == 50 and isinstance(event, Told):
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "on", ask)
        assert main(options(out, table, "--repeats", "2", "--grace", "900")) == GO_ON
    said = capsys.readouterr().out
    assert said.endswith(
        f"stopped; nothing finished is lost. Continue with: python -m pnas_fast.compare --out {out}\n"
    )
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said) == []
    assert handlers() == before
    assert 50 <= sum(map(len, accuracies(out).values())) < 80
    carried_out(["--out", str(out)])
    whole = accuracies(compared)
    assert accuracies(out) == {name: found for name, found in whole.items() if not name.endswith("-2")}


def test_a_comparison_whose_hours_are_over_says_to_go_on(table: Path, tmp_path: Path) -> None:
    assert main(options(tmp_path / "out", table, "--max-hours", "1e-9")) == GO_ON
    assert not (tmp_path / "out").exists()


def test_side_by_side_gives_what_one_after_the_other_does_and_ends_when_the_program_says(
    compared: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = options(tmp_path / "out", table, "--repeats", "3", "--workers", "2")
    ended, end = 0, Bar.end

    def ask(self: Bar, planned: Planned, skipped: bool = False) -> None:
        nonlocal ended
        end(self, planned, skipped)
        ended += not skipped
        for process in multiprocessing.active_children():
            process.terminate()
        if ended == 8:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "FEWEST", 2)
        patch.setattr(Bar, "end", ask)
        assert main(arguments) == GO_ON
    assert not multiprocessing.active_children()
    carried_out(arguments)
    assert accuracies(tmp_path / "out") == accuracies(compared)


CALLS = Counter[str]()


def counted(build: Any, data: Any, context: Any) -> dict[str, float]:
    """An evaluator that counts how often it is asked for a cell."""
    CALLS[str(context.cell)] += 1
    return {"accuracy": true_accuracy(context.cell) + context.seed % 1000 / 1e5, "seconds": 1.0}


@pytest.mark.parametrize("independent", [False, True])
def test_shared_trainings_train_a_cell_once(
    tmp_path: Path, independent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    CALLS.clear()
    monkeypatch.setattr(sys.modules["__main__"], "counted", counted, raising=False)
    arguments = (
        f"{BASE} --predictor paths --evaluator __main__:counted --finalists 0 --budget 20 --repeats 2 "
        f"--out {tmp_path / 'out'}"
    )
    runs = carried_out([*arguments.split(" "), *["--independent"] * independent])
    asked = Counter(str(trial.cell.canonical()) for run in runs for trial in run.trials)
    assert max(asked.values()) > 1
    # One accuracy for a cell, which costs every run what it cost once.
    seen: dict[str, set[float]] = {}
    for run in runs:
        assert run.child_seconds == len(run.trials)
        for trial in run.trials:
            seen.setdefault(str(trial.cell.canonical()), set()).add(trial.accuracy)
    if independent:
        assert sum(CALLS.values()) == sum(asked.values())
        assert max(map(len, seen.values())) == 2
    else:
        assert set(CALLS.values()) == {1}
        assert CALLS.keys() == asked.keys()
        assert max(map(len, seen.values())) == 1
    assert trainings_of(Comparison(runs)) == ("independent" if independent else "shared")


def test_trainings_are_shared_and_weights_are_where_they_were_trained(
    tmp_path: Path, warm_workers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The random phases of both strategies are one, so that the second has nothing to train."""
    arguments = (
        f"--operations sep3x3,identity --blocks 1 --filters 4 --epochs 1 --train-images 64 --device cpu "
        f"--strategies random,evolution --budget 4 --repeats 1 --finalists 0 --out {tmp_path}/out"
    )
    one, other = carried_out(arguments.split(" "))
    assert [trial.measurement.values for trial in one.trials] == [
        trial.measurement.values for trial in other.trials
    ]
    assert (one.folder / BEST).is_file()
    assert not (other.folder / BEST).exists()
    assert search_command.main(["--out", str(other.folder)]) == 0
    assert "the best one is trained again" in capsys.readouterr().out
    assert load_child(other.folder / BEST).genotype == load_child(one.folder / BEST).genotype


def test_independent_repeats_draw_replicas_of_the_table(table: Path, tmp_path: Path) -> None:
    arguments = options(tmp_path / "out", table, "--repeats", "2", "--independent", "--beam", "1")
    runs = carried_out(arguments)
    one, other = ([trial.accuracy for trial in run.trials] for run in runs if run.strategy == "progressive")
    both = np.array([one[:10], other[:10]])
    # All one-block cells are tried by both, and about half of the draws differ.
    assert 1 <= (both[0] != both[1]).sum() < 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--out {out} --strategies random,magic", "'magic', allowed are"),
        ("--out {out} --strategies random,random", "names a strategy twice"),
        ("--out {out} --strategies random --population 4", "--population is an option of evolution, the"),
        ("--out {out} --repeats 0", "allowed is a whole number from 1"),
        ("--out {out} --target 2", "'2', allowed is a number above 0"),
        ("--strategies random", "the following arguments are required: --out"),
        ("--out {out} --from {missing}", "holds no trials.sqlite"),
        ("--out {out} --from {missing} --budget 3", "--from with --budget"),
        ("--out {out} --from {missing} --repeats 3", "--from with --repeats"),
        ("--out {out} --from {missing} --max-hours 3", "--from with --max-hours"),
        ("--out {out} --from {missing} --grace 3", "--from with --grace"),
        ("--out {full} --strategies random --budget 3", "holds other files and no comparison.json"),
        ("--out {full} --from {missing}", "holds other files and no comparison.json"),
        ("--out {full}/note --strategies random", "is a file, expected a comparison's folder"),
        ("--out {out} --independent --evaluation-seed 3", "--independent with --evaluation-seed"),
        ("--out {out} --evaluator table:{missing}", "cannot be read"),
        ("--out {out} --draw-replicas", "--draw-replicas with --evaluator train"),
        ("--out {out} --seed 2147483647 --repeats 2 --strategies random --budget 1", "seed is 2147483648"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_a_line(
    tmp_path: Path, arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "note").write_text("mine")
    out = tmp_path / "out"
    words = arguments.format(out=out, full=full, missing=tmp_path / "missing").split(" ")
    try:
        status = main(words)
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert said in errors
    assert not out.exists()


def test_a_damaged_plan_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (
        "{",
        "{}",
        '{"repeats": 1, "independent": false, "evaluator": "", "strategies": {"random": {}}}',
    ):
        (tmp_path / "comparison.json").write_text(text)
        assert main(["--out", str(tmp_path)]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert "not the plan of a comparison" in errors


def test_the_cells_repeats_have_a_name_of_their_own(tmp_path: Path) -> None:
    request = parse(f"--out {tmp_path / 'out'} --repeats 2 --cell-repeats 3 --strategies random".split(" "))
    assert request.plan is not None
    assert request.plan.repeats == 2
    assert request.plan.configs["random"].repeats == 3
