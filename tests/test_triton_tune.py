"""The tuner's choices, with a timer instead of a card."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from pnas_fast.kernel_tools import tune
from pnas_fast.kernels.triton.launch import Tile
from pnas_fast.kernels.triton.tuned_tiles import measured, read_tiles, trying, write_tiles

USUAL, OTHER, THIRD = Tile(8, None, 1), Tile(8, 128, 2), Tile(4, 255, 2)


def test_the_fastest_wins_but_not_by_noise() -> None:
    assert tune.best({USUAL: 1.0, OTHER: 0.9, THIRD: 0.95}, USUAL) == OTHER
    assert tune.best({USUAL: 1.0, OTHER: 0.99}, USUAL) == USUAL
    assert tune.best({USUAL: 1.0, OTHER: float("inf")}, USUAL) == USUAL


def test_problems_that_share_a_key_are_timed_together() -> None:
    problems = {"a": lambda: ask("one"), "b": lambda: ask("one", "two")}
    costs = {("a", OTHER): 1.0, ("b", OTHER): 9.0, ("a", THIRD): 4.0, ("b", THIRD): 4.0}
    names = {id(problem): name for name, problem in problems.items()}

    def ask(*keys: str) -> None:
        for key in keys:
            measured(key, 0, USUAL)

    def time(problem: tune.Problem, tiles: Mapping[str, Tile]) -> float:
        (tile,) = tiles.values()
        return costs.get((names[id(problem)], tile), 20.0)

    chosen = tune.tune(list(problems.values()), time, [OTHER, THIRD])
    assert chosen == {"one": THIRD, "two": THIRD}


def test_problems_of_the_search_ask_for_every_kernel() -> None:
    asked: set[str] = set()

    def time(problem: tune.Problem, tiles: Mapping[str, Tile]) -> float:
        asked.update(tiles)
        return 1.0

    problems = list(tune.search_problems("cpu", torch.bfloat16, 2, 24))
    chosen = tune.tune(problems, time, [OTHER])
    assert set(chosen) == asked
    kernels = {key.split(",")[0] for key in chosen}
    sides = {f"{name} {side}" for name in ("separable", "separable_backward") for side in (3, 5, 7)}
    others = {"add_backward", "dense", "dense_backward", "dense_backward of taps", "pointwise_backward"}
    sums = {"separable_backward 5 of a sum", "separable_backward 3 dilated of a sum"}
    assert kernels == sides | others | sums | {"separable_backward 3 dilated"}


def test_tables_are_read_as_written_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    assert read_tiles(path) == {}
    write_tiles(path, {"b": USUAL, "a": OTHER})
    assert read_tiles(path) == {"a": OTHER, "b": USUAL}
    assert list(tmp_path.iterdir()) == [path]


def test_a_tile_on_trial_goes_first() -> None:
    with trying({"key": OTHER}) as answers:
        assert measured("key", 0, USUAL) == OTHER
        assert measured("else", 0, USUAL) == USUAL
    assert answers == {"key": OTHER, "else": USUAL}
    assert measured("key", 0, USUAL) == USUAL


def test_without_a_card_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main([]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "tune: torch.cuda.is_available() is False; needed is a CUDA device"
    ]
