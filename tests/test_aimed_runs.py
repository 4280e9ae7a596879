"""Runs for more than accuracy: options, what a folder remembers, the front, the final choice."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pnas_fast import SearchConfig, run_search
from pnas_fast.candidates import expand, one_block_cells
from pnas_fast.cli.options import ConfigError
from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.writing import write_comparison
from pnas_fast.data import load
from pnas_fast.evaluation.table import write_table
from pnas_fast.export.__main__ import main as export
from pnas_fast.latency.table import device_file
from pnas_fast.latency.time_networks import this_machine
from pnas_fast.network import ChildNetwork
from pnas_fast.objectives import Parameters
from pnas_fast.objectives.aims import Aims
from pnas_fast.objectives.counted import counted
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.device import read_device
from pnas_fast.objectives.limits import Bound
from pnas_fast.objectives.memory import Memory
from pnas_fast.protocols import Finished, Measurement, Proposal, Task, Trial
from pnas_fast.report.cost import draw_costs
from pnas_fast.report.palette import MUTED
from pnas_fast.report.trials import trial_table
from pnas_fast.report.view import RunView
from pnas_fast.runs.choice import best_of
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError, default_folder
from pnas_fast.runs.front import FrontKeeper, front_file, pick
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import child_file, save_child
from pnas_fast.search.cli import parse
from pnas_fast.search.command import main
from pnas_fast.search.result import SearchResult
from pnas_fast.space import Cell
from pnas_fast.strategies.finalists import Finalists
from pnas_fast.strategies.random import Random
from strategy_runs import drive, measure
from test_dominance import layers_of
from test_latency import made_up

pytestmark = pytest.mark.usefixtures("few_steps")

OPS = ("sep3x3", "conv1x7_7x1", "identity")
DEPLOYED = Deployment(2, 8, (1, 8, 8), 10)
COSTS = counted(DEPLOYED)


def timed(measurement: Measurement) -> Measurement:
    return replace(measurement, values={**measurement.values, "seconds": 1.0})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = one_block_cells(OPS)
    cells = [Cell.from_codes(row).canonical() for codes in (one, expand(one, OPS).codes) for row in codes]
    proposals = [Proposal(cell, 3) for cell in cells]
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    write_table(path, [Trial(number, one, timed(measure(one))) for number, one in enumerate(proposals)])
    return path


def config_of(table: Path, **values: Any) -> SearchConfig:
    plain: dict[str, Any] = {
        "blocks": 2,
        "operations": OPS,
        "device": "cpu",
        "predictor": "paths",
        "beam": 15,
    }
    return SearchConfig(evaluator=f"table:{table}", **{**plain, **values})


AIMED: dict[str, Any] = {
    "objectives": ("accuracy", "multiply_adds"), "limit": ("parameters<=60000",),
    "deploy": "repeats=2,filters=8",
}  # fmt: skip


@pytest.fixture(scope="module")
def aimed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("runs") / "aimed"
    return run_search(config_of(table, **AIMED), out=folder, progress=False)


def test_the_front_is_that_of_the_trials_that_keep_limits(aimed: SearchResult) -> None:
    trials = aimed.record.done
    assert all(COSTS["parameters"].of(trial) <= 60_000 for trial in trials)
    points = np.array([[-trial.accuracy, COSTS["multiply_adds"].of(trial)] for trial in trials])
    expected = {tuple(points[index]) for index, layer in enumerate(layers_of(points)) if layer == 0}
    found = [(-trial.accuracy, COSTS["multiply_adds"].of(trial)) for trial in aimed.front]
    assert found == sorted(expected)
    assert aimed.keeps_limits
    assert aimed.front[0].accuracy == aimed.record.ranked[0].accuracy


def test_a_summary_tells_what_the_best_cell_costs_where_it_runs(aimed: SearchResult) -> None:
    rows = dict(aimed.rows())
    cost = COSTS["parameters"].before(aimed.best.codes[np.newaxis])[0]
    assert rows["deployed"].startswith(f"{cost:,.6g} parameters, ")
    assert f"{len(aimed.front)} trials that no other beats, hypervolume 0." in rows["front"]
    assert "LIMITS" not in rows


def test_the_hypervolume_is_measured_from_the_most_that_a_cell_costs(aimed: SearchResult) -> None:
    aims = aimed.record.aims
    most = COSTS["multiply_adds"].most(2, OPS)
    assert aims.reference(2, OPS).tolist() == [0.0, most]
    area, accuracies = 0.0, 0.0
    for trial in reversed(aimed.front):  # from the cheapest on
        area += (trial.accuracy - accuracies) * (1 - COSTS["multiply_adds"].of(trial) / most)
        accuracies = trial.accuracy
    assert aimed.hypervolume == pytest.approx(area, abs=1e-12)


def test_a_run_is_read_without_its_data_and_continued_with_the_same_costs(
    aimed: SearchResult, table: Path
) -> None:
    again = run_search(config_of(table, **AIMED), out=aimed.folder, progress=False)
    assert [trial.proposal for trial in again.record.trials] == [t.proposal for t in aimed.record.trials]
    with TrialStore(aimed.folder / "trials.sqlite", write=True) as store:
        fact = store.fact("costs")
        assert fact is not None
        changed = json.loads(fact)
        changed["additive"][0]["const"][0] += 1
        store.set_fact("costs", json.dumps(changed))
    with pytest.raises(RunError, match="cells cost something else"):
        run_search(config_of(table, **AIMED), out=aimed.folder, progress=False)
    with TrialStore(aimed.folder / "trials.sqlite", write=True) as store:
        store.set_fact("costs", '{"deployed": "", "additive": [{"name": "parameters"}]}')
    with pytest.raises(StoreError, match="costs is damaged"):
        RunRecord.load(aimed.folder)
    with TrialStore(aimed.folder / "trials.sqlite", write=True) as store:
        store.set_fact("costs", fact)
    assert SearchResult.load(aimed.folder).front == aimed.front


def test_limits_that_nothing_keeps_are_said_loudly_and_give_an_answer(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(
        table, strategy="random", predictor="mlp", beam=24, budget=20, limit=("parameters<=9",)
    )
    result = run_search(config, out=tmp_path / "run")
    said = capsys.readouterr().out
    assert "NO cell keeps parameters<=9" in said
    assert not result.keeps_limits
    assert dict(result.rows())["LIMITS"].startswith("NO finished cell keeps parameters<=9")
    assert len(result.front) == 1
    page = result.report.read_text()
    assert "BROKEN" in page
    assert "no finished cell keeps parameters&lt;=9" in page
    violations = [result.record.aims.violation(trial.cell) for trial in result.record.done]
    assert result.record.aims.violation(result.best) == min(violations)


def test_a_run_for_accuracy_alone_has_a_front_of_accuracy_and_parameters(table: Path, tmp_path: Path) -> None:
    result = run_search(config_of(table), out=tmp_path / "run", progress=False)
    assert result.record.costs == {}
    points = np.array([[-t.accuracy, Parameters().of(t)] for t in result.record.done])
    expected = {tuple(points[index]) for index, layer in enumerate(layers_of(points)) if layer == 0}
    assert [(-trial.accuracy, Parameters().of(trial)) for trial in result.front] == sorted(expected)
    assert result.hypervolume == result.record.ranked[0].accuracy
    assert "front" not in dict(result.rows())


class TestConfiguration:
    def test_texts_that_mean_the_same_are_the_same(self) -> None:
        one = SearchConfig(
            objectives=("memory", "accuracy", " parameters"), limit=("parameters <= 3e6", "latency_ms<=5"),
            deploy="filters=9, repeats=2",
        )  # fmt: skip
        assert one.objectives == ("accuracy", "parameters", "memory")
        assert one.limit == ("latency_ms<=5", "parameters<=3000000")
        assert one.deploy == "repeats=2,filters=9"
        assert SearchConfig.from_values(json.loads(json.dumps(one.values()))) == one

    def test_the_command_line_takes_several_limits(self) -> None:
        given = ["--plan", "--preset", "quick", "--limit", "parameters<=3e6", "--limit", "multiply_adds<=1e9"]
        config = parse([*given, "--objectives", "accuracy,parameters", "--explore", "0.1"]).config
        assert config.limit == ("multiply_adds<=1000000000", "parameters<=3000000")
        assert (config.objectives, config.explore) == (("accuracy", "parameters"), 0.1)

    def test_it_is_part_of_what_run_it_is_and_old_runs_are_what_they_were(self) -> None:
        plain = SearchConfig()
        values = {
            k: v for k, v in plain.values().items() if k not in ("objectives", "limit", "deploy", "explore")
        }
        assert SearchConfig.from_values(values) == plain
        for change in ({"objectives": ("accuracy", "parameters")}, {"limit": ("parameters<=9",)},
                       {"deploy": "batch=2"}, {"explore": 0.5}):  # fmt: skip
            other = replace(plain, **change)
            assert len(plain.difference(other)) == 1
            assert default_folder(plain, "data") != default_folder(other, "data")

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            ({"objectives": ("parameters",)}, "objectives are 'parameters', allowed is accuracy"),
            (
                {"objectives": ("accuracy", "flops")},
                "found 'flops', allowed are accuracy and any of",
            ),
            ({"objectives": ("accuracy", "accuracy")}, "each once"),
            ({"limit": ("latency<=5",)}, "limit is 'latency<=5', allowed is NAME<=NUMBER"),
            ({"limit": ("accuracy<=5",)}, "allowed is NAME<=NUMBER"),
            ({"limit": ("parameters>=5",)}, "allowed is NAME<=NUMBER"),
            ({"limit": ("parameters<=0",)}, "found '0', allowed is a number above 0"),
            ({"limit": ("parameters<=nan",)}, "found 'nan'"),
            ({"limit": ("parameters<=1", "parameters<=2")}, "allowed is one of parameters"),
            ({"deploy": "blocks=3"}, "deploy is 'blocks=3'"),
            ({"explore": 1.5}, "explore is 1.5"),
            ({"explore": 0.5, "strategy": "random"}, "--explore is an option of progressive"),
            *(
                (
                    {"objectives": ("accuracy", "parameters"), "strategy": name},
                    f"{name} chooses by accuracy alone",
                )
                for name in ("controller", "local", "bananas")
            ),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_a_line(self, values: dict[str, Any], found: str) -> None:
        with pytest.raises(ConfigError) as error:
            SearchConfig(**values)
        assert found in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_cost_that_is_not_known_is_refused_before_anything_is_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        assert main(["--preset", "quick", "--limit", "latency_ms<=5", "--out", str(out)]) == 2
        assert "latency_ms is not known without --device-file" in capsys.readouterr().err
        assert not out.exists()


class TestDevice:
    """Latency comes from a device's file, known by its content; memory from the network."""

    LAYOUT = "repeats=2,filters=8,image=8,batch=1"

    def file(self, folder: Path, deployment: str = LAYOUT) -> Path:
        found = msgspec.structs.replace(device_file(made_up(0.02)), deployment=deployment)
        path = folder / "device.json"
        path.write_bytes(msgspec.json.encode(found))
        return path

    @pytest.mark.slow
    def test_a_search_for_latency_and_memory_keeps_their_limits(self, table: Path, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        cost, memory = read_device(path).cost(), Memory(DEPLOYED)
        most = cost.least(2, OPS) + 0.4 * (cost.most(2, OPS) - cost.least(2, OPS))
        values: dict[str, Any] = {
            "objectives": ("accuracy", "latency", "memory"), "limit": (f"latency_ms<={most:.6g}",),
            "deploy": "repeats=2,filters=8", "device_file": str(path),
        }  # fmt: skip
        config = config_of(table, **values)
        result = run_search(config, out=tmp_path / "run", progress=False)
        assert all(cost.of(trial) <= most for trial in result.record.done)
        points = np.array([[-t.accuracy, cost.of(t), memory.of(t)] for t in result.record.done])
        expected = {tuple(points[index]) for index, layer in enumerate(layers_of(points)) if layer == 0}
        assert {(-t.accuracy, cost.of(t), memory.of(t)) for t in result.front} == expected
        assert result.config.device_file == f"{path}#{read_device(path).digest[:16]}"
        assert result.front_latency == {}
        elsewhere = path.rename(tmp_path / "other.json")
        moved = replace(config, device_file=str(elsewhere))
        assert run_search(moved, out=result.folder, progress=False).front == result.front
        changed = msgspec.structs.replace(read_device(elsewhere), constants=(9.0,) * 5)
        elsewhere.write_bytes(msgspec.json.encode(changed))
        with pytest.raises(RunError, match=r"--device-file [0-9a-f]{16} -> [0-9a-f]{16}"):
            run_search(moved, out=result.folder, progress=False)
        with pytest.raises(ConfigError, match="says something else than when this run began"):
            replace(config, device_file=f"{elsewhere}#{16 * '0'}").resolved()

    @pytest.mark.slow
    def test_the_front_is_measured_where_the_device_is_at_hand(
        self, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.file(tmp_path)
        times = read_device(path)
        here = this_machine("")
        device = msgspec.structs.replace(
            times.device, name=here["name"], system=here["system"], cores=here["cores"],
            provider="CPUExecutionProvider", runtime="onnxruntime", threads=1,
        )  # fmt: skip
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(times, device=device)))
        config = config_of(
            table, strategy="random", predictor="mlp", beam=24, budget=5, objectives=("accuracy", "latency"),
            deploy="repeats=2,filters=8", device_file=str(path),
        )  # fmt: skip
        result = run_search(config, out=tmp_path / "run")
        assert set(result.front_latency) == {trial.number for trial in result.front}
        assert all(ms > 0 for ms in result.front_latency.values())
        assert "measured" in dict(result.rows())
        assert "measured, ms" in result.report.read_text()
        assert "measuring the networks of the front here" in capsys.readouterr().out
        again = run_search(config, out=tmp_path / "run")
        assert again.front_latency == result.front_latency
        assert "measuring the networks" not in capsys.readouterr().out

    @pytest.mark.parametrize("deploy", ["repeats=3", "filters=9", "image=9", "batch=2"])
    def test_a_file_of_another_layout_is_refused_before_anything_is_written(
        self, table: Path, tmp_path: Path, deploy: str
    ) -> None:
        path = self.file(tmp_path)
        config = config_of(table, limit=("latency_ms<=5",), deploy=deploy, device_file=str(path))
        with pytest.raises(ConfigError, match=f"of networks {self.LAYOUT}, wanted are repeats="):
            run_search(config, out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()


class TestFinalChoice:
    AIMS = Aims((), ((COSTS["parameters"], Bound("parameters", 30_000)),))

    def test_finalists_are_those_that_keep_limits(self) -> None:
        trials = drive(Finalists(Random(2, OPS, 90, 1, 3), 4, 2, 1, aims=self.AIMS))
        searched = [trial for trial in trials if not trial.proposal.is_final and trial.done]
        fit = sorted(self.AIMS.feasible(searched), key=lambda trial: trial.order, reverse=True)
        assert any(self.AIMS.violation(trial.cell) for trial in searched)
        finals = [trial for trial in trials if trial.proposal.is_final]
        best = list(dict.fromkeys(trial.cell.canonical() for trial in fit))[:4]
        assert list(dict.fromkeys(trial.cell for trial in finals)) == best
        chosen = best_of(trials, 4, 2, self.AIMS)
        assert chosen is not None
        assert not self.AIMS.violation(chosen.cell)

    def test_of_single_trainings_the_best_keeps_limits(self) -> None:
        small, large = Cell.parse("1:identity+1:identity"), Cell.parse("0:conv1x7_7x1+1:conv1x7_7x1")
        trials = [
            Trial(number, Proposal(cell, 1), Measurement("done", {"accuracy": accuracy}))
            for number, (cell, accuracy) in enumerate([(large, 0.9), (small, 0.5), (small, 0.6)])
        ]
        assert [best_of(trials, 0, 0, aims) for aims in (Aims(), self.AIMS)] == [trials[0], trials[2]]


class TestWeights:
    """Those of the front are kept, and exported where a limit is given later."""

    AIMS = Aims((COSTS["parameters"],))

    def child(self, folder: Path, number: int, cell: str, accuracy: float | None) -> Finished:
        path = child_file(folder, number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
        task = Task(number, Proposal(Cell.parse(cell), 1), 0)
        done = {} if accuracy is None else {"accuracy": accuracy}
        return Finished(task, Measurement("done" if done else "failed", done, None if done else "error"))

    def test_the_front_s_are_kept_whoever_finishes_first(self, tmp_path: Path) -> None:
        small, large = "1:identity+1:identity", "0:conv1x7_7x1+1:conv1x7_7x1"
        events = [
            (2, large, 0.9), (0, small, 0.5), (1, large, 0.9), (3, large, 0.4), (4, small, None),
        ]  # fmt: skip
        for order in (events, events[::-1]):
            folder = tmp_path / str(order[0][0])
            folder.mkdir()
            keeper = FrontKeeper(folder, self.AIMS, [])
            for event in order:
                keeper.on(self.child(folder, *event))
            kept = {path.stem: path.read_text() for path in (folder / "front").iterdir()}
            assert kept == {"0": "0", "1": "1"}
            trials = [Trial(1, Proposal(Cell.parse(large), 1), Measurement("done", {"accuracy": 0.9}))]
            FrontKeeper(folder, self.AIMS, trials)
            assert [path.stem for path in (folder / "front").iterdir()] == ["1"]

    def test_a_search_for_accuracy_alone_keeps_none(self, tmp_path: Path) -> None:
        FrontKeeper(tmp_path, Aims(), []).on(self.child(tmp_path, 0, "1:identity+1:identity", 0.5))
        assert not (tmp_path / "front").exists()

    def test_the_best_that_keeps_a_limit_is_exported(
        self, aimed: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cost = COSTS["multiply_adds"]
        assert len(aimed.front) >= 2
        trial = aimed.front[1]
        texts = [f"multiply_adds<={cost.of(trial):.12g}", "parameters<=1e9"]
        with pytest.raises(RunError, match=f"weights of trial {trial.number}, .* are not there"):
            pick(aimed.record, texts)
        path = front_file(aimed.folder, trial.number)
        path.parent.mkdir()
        data = load("digits")
        save_child(ChildNetwork(trial.cell, 1, 8, data.classes, data.image_shape), data, path)
        assert pick(aimed.record, texts) == (trial, path)
        out = tmp_path / "picked.onnx"
        arguments = ["--run", str(aimed.folder), "--pick", texts[0], "--pick", texts[1], "--output", str(out)]
        assert export(arguments) == 0
        assert f"trial {trial.number} of {aimed.folder.name}, {trial.cell}" in capsys.readouterr().out
        assert out.is_file()
        best = aimed.record.best
        assert best is not None
        (aimed.folder / "best.safetensors").write_bytes(path.read_bytes())
        assert pick(aimed.record, [f"multiply_adds<={cost.of(best):.12g}"])[0] == best
        (aimed.folder / "best.safetensors").unlink()

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("multiply_adds<=10", "no trial on the front keeps multiply_adds<=10 (the least there is"),
            ("latency_ms<=5", "does not know latency_ms"),
            ("latency<=5", "pick: limit is 'latency<=5', allowed is NAME<=NUMBER"),
        ],
    )
    def test_what_nothing_keeps_is_refused_in_a_line(
        self, aimed: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, found: str
    ) -> None:
        out = tmp_path / "x.onnx"
        assert export(["--run", str(aimed.folder), "--pick", text, "--output", str(out)]) == 2
        error = capsys.readouterr().err
        assert found in error
        assert error.count("\n") == 1
        assert not out.exists()


class TestReport:
    def test_every_trial_has_its_costs_in_the_table(self, aimed: SearchResult) -> None:
        rows = list(csv.DictReader((aimed.folder / "trials.csv").read_text().splitlines()))
        for trial, row in zip(aimed.record.trials, rows, strict=True):
            for name, cost in COSTS.items():
                assert float(row[f"deployed.{name}"]) == cost.before(trial.cell.codes[np.newaxis])[0]
        labels = [column.label for column in trial_table(RunView(aimed.record)).columns]
        assert labels[-3:-1] == ["parameters, deployed", "multiply-adds, deployed"]

    def page(self, result: SearchResult) -> str:
        return result.report.read_text()

    def test_the_page_tells_of_objectives_and_draws_their_fronts(self, aimed: SearchResult) -> None:
        page = self.page(aimed)
        assert "The search was for accuracy, few multiply-adds, at most 60,000 parameters" in page
        assert "BROKEN" not in page
        view = RunView(aimed.record)
        for narrow in (False, True):
            figure = draw_costs(view, narrow)
            labels = [axes.get_xlabel() for axes in figure.axes]
            assert labels == ["parameters", "multiply-adds"]
            rings = figure.axes[1].lines
            drawn = next(line for line in rings if line.get_label() == "Pareto front")
            expected = [COSTS["multiply_adds"].of(trial) for trial in reversed(aimed.front)]
            assert list(drawn.get_xdata()) == expected  # type: ignore[arg-type]

    def test_cells_over_a_limit_are_grey_and_on_no_front(self, aimed: SearchResult) -> None:
        bound = sorted(COSTS["parameters"].of(trial) for trial in aimed.record.done)[5]
        config = {**aimed.record.config, "limit": [f"parameters<={bound:.12g}"]}
        record = replace(aimed.record, config=config)
        axes = draw_costs(RunView(record)).axes[0]
        dots = [line for line in axes.lines if str(line.get_gid()).startswith("trials")]
        grey = [
            number for line in dots if line.get_color() == MUTED for number in str(line.get_gid()).split()[1:]
        ]
        expected = [t.number for t in record.done if COSTS["parameters"].of(t) > bound]
        assert sorted(map(int, grey)) == sorted(expected)
        drawn = next(line for line in axes.lines if line.get_label() == "Pareto front")
        assert np.asarray(drawn.get_xdata(), np.float64).max() <= bound
        assert any(line.get_label() == "limit" for line in axes.lines)


@pytest.mark.slow
def test_a_comparison_draws_hypervolume_where_runs_are_after_the_same(table: Path, tmp_path: Path) -> None:
    records = []
    own: dict[str, Any] = {"predictor": "mlp", "beam": 24, "budget": 30, "limit": ("parameters<=30000",)}
    for strategy in ("random", "evolution"):
        for seed in (0, 1):
            config = config_of(table, strategy=strategy, seed=seed, **{**AIMED, **own})
            folder = tmp_path / f"{strategy}-{seed}"
            records.append(run_search(config, out=folder, progress=False).record)
    comparison = Comparison(records)
    for group in comparison.groups:
        for run, curve in zip(group.runs, comparison.hypervolumes[group.strategy], strict=True):
            result = SearchResult.load(run.record.folder)
            assert curve[-1] == pytest.approx(result.hypervolume, abs=1e-12)
            assert (np.diff(curve) >= 0).all()
            aims = run.record.aims
            half = aims.hypervolume(run.record.distinct[:15], aims.reference(2, OPS))
            assert curve[14] == pytest.approx(half, abs=1e-12)
    summary = write_comparison(tmp_path, comparison, None)
    assert summary["strategies"]["random"]["hypervolume"]["mean"] > 0
    assert "Hypervolume of the front at the end" in (tmp_path / "compare.html").read_text()
    assert (tmp_path / "figures" / "hypervolume.svg").is_file()
    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    assert float(rows[-1]["hypervolume"]) > 0
    other = replace(records[0], config={**records[0].config, "limit": ["parameters<=50000"], "seed": 9})
    assert Comparison([*records, other]).hypervolumes == {}
