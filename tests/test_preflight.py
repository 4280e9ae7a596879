"""What is tried before a search: how many children a GPU should train, and what all of it will cost."""

import importlib
import random
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pnas_fast import Cell, SearchConfig
from pnas_fast.data import DataSet, load
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import ChildResult
from pnas_fast.evaluation.probe import probe_child
from pnas_fast.search import placement, preflight
from pnas_fast.search.command import main
from pnas_fast.search.config import paper
from pnas_fast.search.placement import Placement
from pnas_fast.search.preflight import Load, PreflightError, choose_load, random_cell, try_children
from pnas_fast.search.warming import warm_kernels

# By name: `pnas_fast.search` as an attribute is the function.
planning = importlib.import_module("pnas_fast.search.plan")

GIB = 2**30
CELL = Cell.parse("0:sep3x3+1:max_pool3x3")


def card(
    best: int, each: int = 2, total: int = 80, others: int = 1
) -> tuple[Callable[[int, int], Load | None], list[int]]:
    """A card whose rate grows up to ``best`` children of ``each`` GiB, and the numbers it was asked for."""
    asked = []

    def measure(count: int, share: int) -> Load | None:
        asked.append(count)
        used = others + each * count
        return None if used > total else Load(count, 100.0 * min(count, best), used * GIB, total * GIB)

    return measure, asked


@pytest.mark.parametrize(
    ("best", "each", "most", "chosen", "asked"),
    [
        (1, 2, 16, 1, [1, 2]),  # a card that one child fills
        (6, 2, 16, 8, [1, 2, 4, 8, 16]),
        (64, 2, 16, 16, [1, 2, 4, 8, 16]),  # as many as there are cores
        (64, 2, 12, 12, [1, 2, 4, 8, 12]),
        (64, 15, 16, 4, [1, 2, 4]),  # 0.9 of 80 GiB hold 1 + 4 times 15
        (64, 50, 16, 1, [1]),
        (64, 2, 1, 1, [1]),
    ],
)
def test_as_many_children_as_pay_and_fit(
    best: int, each: int, most: int, chosen: int, asked: list[int]
) -> None:
    measure, numbers = card(best, each)
    counts = sorted({*(count for count in (1, 2, 4, 8, 16) if count <= most), most})
    load, loads = choose_load(measure, counts)
    assert load.children == chosen
    assert numbers == asked
    assert [load.children for load in loads] == asked


def test_more_children_that_do_not_fit_after_all_are_not_chosen() -> None:
    measure, _ = card(64)
    load, _ = choose_load(lambda count, share: measure(count, share) if count < 4 else None, [1, 2, 4, 8])
    assert load.children == 2
    with pytest.raises(PreflightError, match="not even one child fits the GPU"):
        choose_load(lambda count, share: None, [1, 2])
    with pytest.raises(PreflightError, match="4 children at once do not fit the GPU"):
        choose_load(lambda count, share: None, [4])


@pytest.mark.parametrize(("bonus", "chosen"), [(1.2, (4, 4)), (0.9, (4, 1))])
def test_kernels_are_planned_for_what_is_fastest_of_the_whole_card_and_a_part(
    bonus: float, chosen: tuple[int, int]
) -> None:
    asked = []

    def measure(count: int, share: int) -> Load | None:
        asked.append((count, share))
        return Load(count, 100.0 * min(count, 4) * (bonus if share > 1 else 1), GIB, 80 * GIB, share)

    load, loads = choose_load(measure, [1, 2, 4, 8], lambda children: sorted({1, children}))
    assert (load.children, load.share) == chosen
    assert asked == [(1, 1), (2, 1), (2, 2), (4, 1), (4, 4), (8, 1), (8, 8)]
    assert len(loads) == len(asked)


def test_the_number_is_measured_with_all_children_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card and the workers are stand-ins; what is chosen from what they say is not."""
    memory = {"used": 0}
    seen: list[tuple[int, int]] = []

    def tried(
        config: SearchConfig, data: DataSet, placement: Placement, cells: Sequence[Cell],
        look: Callable[[], None],
    ) -> list[ChildResult]:  # fmt: skip
        assert placement.devices == ("cuda:0",)  # one process, whatever it trains
        assert all(len(cell) == config.blocks for cell in cells)
        assert len(cells) >= placement.children
        seen.append((placement.lanes, placement.share))
        if placement.lanes > 4:
            return [ChildResult(error="out of memory: CUDA")] * len(cells)
        memory["used"] = 3 * GIB * placement.lanes
        look()
        memory["used"] = 0
        return [ChildResult("done", images_per_second=1000.0)] * len(cells)

    monkeypatch.setattr(preflight, "try_children", tried)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GIB - memory["used"], 80 * GIB))
    config = SearchConfig(device="cuda", backend="triton")
    placement, loads = preflight.choose_placement(config, load_digits())
    assert seen == [(1, 1), (2, 1), (2, 2), (4, 1), (4, 4), (8, 1), (8, 8)]
    assert placement == Placement(("cuda:0", "cuda:1"), 4, 1)
    assert loads[3] == Load(4, 4000.0, 12 * GIB, 80 * GIB)
    assert [load.children for load in loads] == [1, 2, 2, 4, 4]
    assert preflight.describe_choice(placement, loads) == (
        "children at a time on a GPU, of those tried, by images a second (1: 1,000; 2: 2,000; "
        "2 (1/2): 2,000; 4: 4,000; 4 (1/4): 4,000): the fewest within 5% of the most, "
        "1 worker with 4 children at a time on each of 2 GPUs"
    )


def test_what_was_asked_for_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    tried: list[tuple[Sequence[int], Sequence[int]]] = []

    def choose(
        config: SearchConfig, data: DataSet, counts: Sequence[int], shares: Callable[[int], Sequence[int]]
    ) -> tuple[Load, list[Load]]:
        tried.append((counts, shares(counts[-1])))
        return Load(2, 1.0, 1, 1, 2), []

    monkeypatch.setattr(preflight, "choose_for_gpu", choose)
    monkeypatch.setattr(preflight, "cores", lambda: 5)

    def placed(**options: Any) -> Placement:
        return preflight.choose_placement(SearchConfig(device="cuda", **options), load_digits())[0]

    both = {"children_per_gpu": 4, "share": 2}
    assert placed(backend="triton", **both) == Placement(("cuda:0",), 4, 2)
    assert placed(backend="triton", children_per_gpu=1) == Placement(("cuda:0",), 1, 1)
    assert placed(backend="eager", children_per_gpu=4) == Placement(("cuda:0",), 4, 1)
    assert placed(backend="triton", evaluator="mine:own", children_per_gpu=4) == Placement(("cuda:0",) * 4)
    assert not tried
    assert placed(backend="triton", children_per_gpu=4) == Placement(("cuda:0",), 2, 2)
    placed(backend="triton", share=4)
    placed(backend="triton")
    placed(backend="eager")
    placed(backend="triton", evaluator="mine:own")
    assert tried == [
        ([4], [1, 4]), ([1, 2, 4, 8], (4,)), ([1, 2, 4, 8], [1, 8]), ([1, 2, 4, 8], [1]), ([1, 2, 4, 5], [1]),
    ]  # fmt: skip


def load_digits() -> DataSet:
    return load("digits").subset(128)


def test_workers_have_devices_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(placement, "cores", lambda: 8)
    own = SearchConfig(device="cuda", evaluator="mine:own")
    assert placement.on_gpus(own, placement.gpus(), 3, 1).devices == ("cuda:0", "cuda:1") * 3
    trained = placement.on_gpus(SearchConfig(device="cuda"), placement.gpus(), 3, 2)
    assert trained == Placement(("cuda:0", "cuda:1"), 3, 2)
    assert trained.children == 6
    assert placement.on_cpu(SearchConfig(device="cpu", threads=3)).devices == ("cpu",) * 2
    assert placement.on_cpu(SearchConfig(device="cpu", threads=3, workers=5)).devices == ("cpu",) * 5
    assert str(Placement(("cuda:0", "cuda:1") * 3)) == "3 workers on each of 2 GPUs"
    assert str(Placement(("cuda:0",), 4, 4)) == (
        "1 worker with 4 children at a time on a GPU, kernels for 1/4 of it"
    )
    assert str(Placement(("cuda:0",))) == "1 worker on a GPU"
    assert str(Placement(("cpu",) * 2)) == "2 workers on the CPU"


def test_a_probe_trains_for_about_as_long_as_it_is_told() -> None:
    settings = TrainingSettings(filters=4, batch=32, device="cpu")
    data = load_digits()
    result = probe_child(CELL, settings, data, 1, 0.2)
    assert result.status == "done"
    assert result.images_seen % 32 == 0
    assert result.images_seen / result.images_per_second >= 0.1
    assert result.evaluation_seconds < result.seconds
    whole = ChildResult("done", seconds=3.0, evaluation_seconds=1.0, images_seen=100, images_per_second=100.0)
    assert planning._Size(1000, 2.0).seconds(whole) == 1.0 + 10.0 + 2.0


def test_a_probe_of_a_child_that_fails_says_why() -> None:
    settings = TrainingSettings(filters=4, batch=32, device="cpu", time_limit=0.001)
    assert "time limit" in str(probe_child(CELL, settings, load_digits(), 1, 0.2).error)
    config = SearchConfig(device="cpu", time_limit=0.001, blocks=1, workers=1).resolved()
    with pytest.raises(PreflightError, match="no child could be tried: exceeded the time limit"):
        planning.make_plan(config)


@pytest.mark.parametrize("placed", [Placement(("cpu",) * 2), Placement(("cpu",), 3)])
def test_children_are_tried_side_by_side_and_nothing_is_left(tmp_path: Path, placed: Placement) -> None:
    config = SearchConfig(device="cpu", filters=4, batch=32)
    generator = random.Random(0)
    cells = [random_cell(blocks, config.operations, generator) for blocks in (1, 2, 1)]
    looks = []
    results = try_children(config, load_digits(), placed, cells, lambda: looks.append(1))
    assert [result.status for result in results] == ["done"] * 3
    assert results[1].parameters > max(results[0].parameters, results[2].parameters)
    assert looks


def test_the_plan_counts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "--preset quick --device cpu --plan --blocks 2 --beam 7 --epochs 3 --train-images 100 --workers 2"
    status = main(line.split())
    output = capsys.readouterr().out
    assert status == 0
    assert re.search(r" 2 +31,620 +31,620 +100 % +7 ", output)
    assert f"55 children at most, {55 * 3 * 100:,} images" in output
    assert "with 2 workers on the CPU" in output
    assert list(tmp_path.iterdir()) == []


def answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ChildResult("done", images_seen=100, images_per_second=100.0, seconds=1.0, memory=GIB)
    monkeypatch.setattr(planning, "try_children", lambda *given: [result] * len(given[3]))


def test_the_plan_of_the_papers_search_needs_no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_at_once(monkeypatch)
    config = replace(paper(), data=f"cifar10:{tmp_path}", device="cpu", workers=2).resolved()
    plan = planning.make_plan(config)
    assert [level.candidates for level in plan.levels] == [136, 31_620, 135_168, 209_920, 301_056]
    assert [level.share for level in plan.levels[:3]] == [1, 1, 135_168 / 10_979_688]
    assert plan.levels[4].share == pytest.approx(9.57e-8, rel=1e-3)
    assert plan.children == 1_160
    assert plan.images == 1_044_000_000
    assert plan.hours == pytest.approx(1_044_000_000 / 100 / 3600 / 2)
    assert plan.loads == []


def test_a_plan_scores_no_more_cells_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_at_once(monkeypatch)
    config = SearchConfig(operations=("identity",), beam=1000, device="cpu").resolved()
    for level in planning.make_plan(config).levels:
        assert level.children == level.candidates == level.distinct
        assert level.share == 1


def test_a_plan_for_gpus_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_at_once(monkeypatch)
    loads = [Load(1, 100.0, 3 * GIB, 80 * GIB), Load(2, 199.0, 5 * GIB, 80 * GIB, 2)]
    monkeypatch.setattr(preflight, "choose_for_gpu", lambda *given: (loads[1], loads))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert main(["--preset", "paper", "--plan", "--device", "cuda"]) == 0
    output = capsys.readouterr().out
    assert "2 at once on a GPU, kernels for 1/2 of it: 199 images/s, 5.0 of 80 GiB in use" in output
    planned = "1 worker with 2 children at a time on each of 2 GPUs, kernels for 1/2 of it"
    assert f"about 30 d 05 h with {planned}" in " ".join(output.split())
    assert "1.00" in output


def test_kernels_that_are_compiled_are_compiled_before_children_need_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []
    lines: list[str] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, len(commands) - 1)

    monkeypatch.setattr(subprocess, "run", run)
    config = replace(
        SearchConfig(), backend="triton", device="cuda", precision="bf16", operations=("sep3x3",)
    )
    warm_kernels(replace(config, backend="eager"), (3, 32, 16), lines.append)
    assert not commands
    assert not lines
    warm_kernels(config, (3, 32, 16), lines.append)
    warm_kernels(config, (3, 32, 16), lines.append)
    sizes = f"--filters {config.filters} --repeats {config.repeats} --blocks {config.blocks}"
    expected = f"-m pnas_fast.kernel_tools.warm {sizes} --image 32x16x3 --operations sep3x3 --dtype bfloat16"
    assert commands == [expected.split()] * 2
    assert lines[:-1] == [lines[0]] * 2
    assert "not every kernel" in lines[-1]
