"""Local search against a plain one, and what a lag changes about it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pnas_fast.counting import count_distinct
from pnas_fast.protocols import Measurement, Proposal, Strategy, StrategyError, Trial
from pnas_fast.space import OPERATIONS, Block, Cell, CellError
from pnas_fast.space.neighbours import neighbours
from pnas_fast.strategies.keyed import generator_of
from pnas_fast.strategies.local import RANDOM, STREAM, Local
from pnas_fast.strategies.random import Random
from strategy_runs import drive, measure, true_accuracy

BUDGET = 300


def goodness(cell: Cell) -> tuple[float, float]:
    """What a landscape says of a cell: no cell is as good as another."""
    found = measure(Proposal(cell, 1))
    return (found.values["accuracy"], -found.values["validation_loss"]) if found.done else (-1.0, 0.0)


def plain_search(blocks: int, operations: tuple[str, ...], budget: int, seed: int) -> list[Cell]:
    """One cell after another by first improvement, as naszilla has it, on from where nothing is better."""
    tried = [proposal.cell for proposal in Random(blocks, operations, RANDOM, 1, seed).ask()]
    expanded = set[Cell]()
    centre = max(tried, key=goodness)
    while True:
        expanded.add(centre)
        around = neighbours(centre, operations)
        for index in generator_of(centre, seed, STREAM).permutation(len(around)):
            if around[index] in tried:
                continue
            tried.append(around[index])
            if len(tried) == budget:
                return tried
            if goodness(around[index]) > goodness(centre):
                centre = around[index]
                break
        else:
            centre = max((cell for cell in tried if cell not in expanded), key=goodness)


@pytest.mark.parametrize(("blocks", "seed"), [(1, 0), (2, 0), (2, 1), (3, 2), (5, 3)])
def test_without_lag_it_is_plain_local_search(blocks: int, seed: int) -> None:
    budget = 100 if blocks == 1 else BUDGET
    trials = drive(Local(blocks, OPERATIONS, budget, 1, seed, lag=0))
    assert [trial.cell for trial in trials] == plain_search(blocks, OPERATIONS, budget, seed)


@pytest.mark.parametrize("lag", [0, 16])
def test_it_finds_a_cell_that_is_better_than_all_next_to_it(lag: int) -> None:
    trials = drive(Local(2, OPERATIONS, BUDGET, 1, 0, lag))
    best = max((trial.cell for trial in trials), key=goodness)
    around = neighbours(best, OPERATIONS)
    assert set(around) <= {trial.cell for trial in trials}
    assert all(goodness(best) > goodness(cell) for cell in around)


@pytest.mark.parametrize("lag", [0, 3, 16, 40])
def test_the_whole_space_is_trained_once_each_and_then_it_ends(lag: int) -> None:
    """Also where most cells fail, and so lie between those that do not."""

    def evaluate(proposal: Proposal) -> Measurement:
        return done(0.5) if len(set(str(proposal.cell))) % 4 == 0 else FAILED

    for make in (measure, evaluate):
        strategy = Local(1, OPERATIONS[:4], 1_000, 1, 0, lag)
        assert strategy.planned == count_distinct(1, OPERATIONS[:4]) == 36
        trials = drive(strategy, evaluate=make, workers=2)
        assert len({trial.cell for trial in trials}) == len(trials) == strategy.planned


def test_no_cell_is_proposed_twice_and_what_is_not_drawn_is_next_to_its_parent() -> None:
    trials = drive(Local(3, OPERATIONS, BUDGET, 1, 1))
    assert len({trial.cell for trial in trials}) == len(trials) == BUDGET
    drawn = Random(3, OPERATIONS, 17, 1, 1).ask()
    assert [trial.proposal for trial in trials[:17]] == drawn
    for trial in trials[17:]:
        parent = trials[int(trial.proposal.note["parent"])]
        assert parent.number < trial.number - 16
        assert trial.cell in neighbours(parent.cell, OPERATIONS)


def test_the_order_of_a_cell_s_blocks_has_no_influence() -> None:
    plain = drive(Local(3, OPERATIONS, 120, 1, 0, lag=2))
    mirrored = {
        trial.number: Proposal(
            Cell(tuple(Block(block.in2, block.op2, block.in1, block.op1) for block in trial.cell.blocks)), 1
        )
        for trial in plain
    }
    assert any(mirrored[trial.number].cell != trial.cell for trial in plain)
    found = drive(Local(3, OPERATIONS, 120, 1, 0, lag=2), stored=mirrored)
    assert [trial.cell.canonical() for trial in found] == [trial.cell for trial in plain]


def parents(strategy: Strategy, measured: Callable[[int], Measurement]) -> dict[int, int]:
    """The parents' numbers by the children's, where a trial depends on its number alone."""
    proposals, number = list(strategy.ask()), 0
    while number < len(proposals):
        strategy.tell(Trial(number, proposals[number], measured(number)))
        proposals += strategy.ask()
        number += 1
    return {n: int(proposal.note["parent"]) for n, proposal in enumerate(proposals) if proposal.note}


def done(accuracy: float, **values: float) -> Measurement:
    return Measurement("done", {"accuracy": accuracy, **values})


FAILED = Measurement("failed", {}, "the loss is not finite")


@pytest.mark.parametrize("lag", [0, 1, 5, 16])
def test_the_first_improvement_that_is_seen_moves(lag: int) -> None:
    found = parents(Local(5, OPERATIONS, 60, 1, 0, lag), lambda number: done(number / 100))
    assert found == {number: number - lag - 1 for number in range(max(RANDOM, lag + 1), 60)}


def test_a_lower_loss_is_an_improvement_and_an_equal_one_is_none() -> None:
    better = parents(
        Local(5, OPERATIONS, 40, 1, 0, 0), lambda number: done(0.5, validation_loss=1 - number / 100)
    )
    assert better == {number: number - 1 for number in range(RANDOM, 40)}
    equal = parents(Local(5, OPERATIONS, 40, 1, 0, 0), lambda number: done(0.5, validation_loss=0.3))
    assert set(equal.values()) == {0}


@pytest.mark.parametrize("nothing", [FAILED, Measurement("done", {}), done(float("nan"))])
def test_what_failed_is_the_worst(nothing: Measurement) -> None:
    # Twenty failures in a row would end the search.
    found = parents(Local(5, OPERATIONS, 27, 1, 0, 0), lambda number: done(0.1) if number == 7 else nothing)
    assert set(found.values()) == {7}


def test_a_used_up_centre_gives_way_to_the_best_that_was_none() -> None:
    """Every child is worse than those before, so centres follow one another in order."""
    found = parents(Local(1, OPERATIONS[:4], 36, 1, 0, 0), lambda number: done(1 - number / 100))
    centres = list(found.values())
    assert centres == sorted(centres)
    assert len(set(centres)) > 3


def test_neighbours_of_a_centre_that_was_left_count_when_they_are_told() -> None:
    accuracies = {0: 0.6, 14: 0.7, 15: 0.8, 16: 0.75}
    found = parents(Local(5, OPERATIONS, 160, 1, 0, 3), lambda number: done(accuracies.get(number, 0.5)))
    assert {found[number] for number in range(10, 18)} == {0}
    assert found[18] == 14
    # 15 was proposed before 14 was known; it is the next centre, and has about 107 neighbours.
    assert {found[number] for number in range(19, 110)} == {15}
    # 16 was never better than the centre of its time; it is the best that was none.
    last = list(found.values())
    assert last[last.index(16) - 1] == 15
    assert set(last) == {0, 14, 15, 16}


def test_it_finds_better_cells_than_random_search() -> None:
    def best(strategy: Strategy) -> float:
        found = max((trial for trial in drive(strategy) if trial.done), key=lambda trial: trial.order)
        return true_accuracy(found.cell)

    searched, drawn = (
        np.mean([best(make(5, OPERATIONS, 200, 1, seed)) for seed in range(3)]) for make in (Local, Random)
    )
    assert searched > drawn + 0.01


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": 0}, StrategyError, "budget 0, allowed is 1 and more"),
        ({"lag": -1}, StrategyError, "lag -1, allowed is 0 and more"),
        ({"blocks": 6}, CellError, "allowed are 1 to 5"),
        ({"operations": ["sep9x9"]}, CellError, "unknown operation 'sep9x9'"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"blocks": 5, "operations": OPERATIONS, "budget": 10, "epochs": 1, "seed": 0}
    with pytest.raises(error, match=message):
        Local(**(arguments | options))
