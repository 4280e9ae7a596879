"""Strategies: what all of them promise, then each one's own."""

import random
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pnas_fast.objectives import Accuracy, Parameters
from pnas_fast.protocols import Measurement, Proposal, Strategy, StrategyError, Trial
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.driver import Driver
from pnas_fast.search.parts import make_strategy
from pnas_fast.space import OPERATIONS, Block, Cell, CellError
from pnas_fast.space.neighbours import draw, neighbours
from pnas_fast.strategies.bananas import Bananas
from pnas_fast.strategies.controller import Controller
from pnas_fast.strategies.evolution import Evolution
from pnas_fast.strategies.exhaustive import Exhaustive, level_sizes
from pnas_fast.strategies.failures import MOST
from pnas_fast.strategies.finalists import Finalists
from pnas_fast.strategies.local import Local
from pnas_fast.strategies.population import note_on_population, sample_of, size_of
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.strategies.random import Random
from pnas_fast.surrogate import Growth
from strategy_runs import (
    KilledError,
    Landscape,
    Memo,
    SimulatedExecutor,
    done,
    drive,
    proposals_of,
    true_accuracy,
)

pytestmark = pytest.mark.usefixtures("few_steps")

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "random": lambda: Random(5, OPERATIONS, 60, 2, seed=3),
    "random in a space that is too small": lambda: Random(1, ["identity"], 8, 2, seed=3),
    "evolution": lambda: Evolution(5, OPERATIONS, 90, 2, seed=3),
    "evolution without lag": lambda: Evolution(3, OPERATIONS, 60, 2, 3, lag=0, population=10, sample=3),
    "evolution with a lag beyond its population": lambda: Evolution(
        3, OPERATIONS, 60, 2, 3, 30, population=8
    ),
    "evolution in a space that is too small": lambda: Evolution(1, OPERATIONS[:1], 6, 2, 3, 2, population=3),
    "evolution with retraining": lambda: Evolution(2, OPERATIONS[:2], 80, 2, 3, retrain=True),
    "local": lambda: Local(5, OPERATIONS, 60, 2, seed=3),
    "local without lag in a space that is too small": lambda: Local(1, OPERATIONS[:3], 60, 2, 3, lag=0),
    "bananas": lambda: Bananas(5, OPERATIONS, 45, 2, seed=3, candidates=20),
    "bananas in a space that is too small": lambda: Bananas(1, OPERATIONS[:3], 60, 2, 3, 2, candidates=10),
    "progressive": lambda: Progressive(Growth(2, 6, OPERATIONS[:2]), 2, seed=3),
    "progressive by paths from losses": lambda: Progressive(
        Growth(3, 6, OPERATIONS[:2], "paths"), 2, seed=3, learn="loss"
    ),
    "bananas by paths": lambda: Bananas(5, OPERATIONS, 45, 2, seed=3, candidates=20, predictor="paths"),
    "controller": lambda: Controller(2, OPERATIONS, 40, 2, 3, lag=7, batch=10, rate=0.02),
    "controller, table": lambda: Controller(5, OPERATIONS, 60, 2, 3, policy="table", rate=0.5),
    "controller, reinforce, in a space that is too small": lambda: Controller(
        1, OPERATIONS[:1], 9, 2, 3, 0, 5, algorithm="reinforce"
    ),
    "progressive from a part of level 1": lambda: Progressive(
        Growth(3, 6, OPERATIONS[:2], first=4), 2, seed=3
    ),
    "exhaustive": lambda: Exhaustive(2, OPERATIONS[:2], 0, 2, 2, seed=3),
    "exhaustive sample": lambda: Exhaustive(3, OPERATIONS[:2], 200, 1, 2, seed=3),
    "evolution and a final choice": lambda: Finalists(Evolution(3, OPERATIONS, 60, 2, 3), 4, 3, 2),
    "progressive and a final choice": lambda: Finalists(
        Progressive(Growth(2, 6, OPERATIONS[:2]), 2, seed=3), 3, 2, 2
    ),
    "evolution of small networks": lambda: Evolution(5, OPERATIONS, 60, 2, 3, objective=Parameters()),
}


@pytest.mark.parametrize(
    ("values", "make"),
    [
        ({"strategy": "local"}, lambda: Local(2, OPERATIONS, 45, 3, 5)),
        ({"strategy": "local", "lag": 3}, lambda: Local(2, OPERATIONS, 45, 3, 5, 3)),
        ({"strategy": "bananas"}, lambda: Bananas(2, OPERATIONS, 45, 3, 5)),
        (
            {"strategy": "bananas", "lag": 3, "candidates": 12, "predictor": "lstm"},
            lambda: Bananas(2, OPERATIONS, 45, 3, 5, 3, 12, "lstm"),
        ),
    ],
)
def test_a_configuration_s_options_reach_its_strategy(
    values: dict[str, object], make: Callable[[], Strategy]
) -> None:
    config = SearchConfig(blocks=2, budget=45, epochs=3, seed=5, finalists=0, **values)
    assert drive(make_strategy(config)) == drive(make())


@cache
def whole_run(name: str) -> list[Trial]:
    """With one worker."""
    return drive(STRATEGIES[name]())


@pytest.mark.parametrize("name", STRATEGIES)
class TestAnyStrategy:
    """What follows from the arguments and from the trials told in order, and from nothing else."""

    @pytest.mark.parametrize(("workers", "seldom"), [(1, True), (2, False), (7, False), (7, True)])
    def test_workers_and_their_pace_have_no_influence(self, name: str, workers: int, seldom: bool) -> None:
        found = drive(STRATEGIES[name](), workers=workers, seed=workers, seldom=seldom)
        assert found == whole_run(name)

    def test_a_run_goes_on_wherever_it_was_killed(self, name: str) -> None:
        memo: Memo = {}
        chance, trials, kills = random.Random(1), None, 0
        while trials is None:
            try:
                trials = drive(STRATEGIES[name](), memo, workers=3, seed=kills, lives=chance.randrange(9))
            except KilledError:
                kills += 1
        assert kills >= len(memo) // 8
        assert trials == whole_run(name)

    def test_what_was_proposed_elsewhere_holds(self, name: str) -> None:
        """As a stored proposal does that another version of a library computed."""
        here = whole_run(name)
        number = len(here) // 3
        cell = here[number].cell
        other = mirrored(neighbours(cell, sorted({op for block in cell.blocks for _, op in block.sides}))[0])
        stored = {number: Proposal(other, here[number].proposal.budget, note=here[number].proposal.note)}
        one, seven = (drive(STRATEGIES[name](), workers=workers, stored=stored) for workers in (1, 7))
        assert one == seven
        assert one[:number] == here[:number]
        assert one[number].cell == other

    def test_it_ends_and_makes_no_more_than_it_planned(self, name: str) -> None:
        strategy = STRATEGIES[name]()
        assert strategy.planned > 0
        assert len(drive(strategy)) <= strategy.planned
        assert not strategy.ask()


def test_any_strategy_under_the_driver_and_its_store(tmp_path: Path) -> None:
    expected = whole_run("evolution without lag")
    for workers, lives in ((3, 20), (2, 25), (1, float("inf"))):
        executor = SimulatedExecutor(workers, seed=workers, lives=lives)
        with TrialStore(tmp_path / "trials.sqlite", write=True) as store:
            strategy = STRATEGIES["evolution without lag"]()
            driver = Driver(strategy, "evolution", Landscape(), executor, store, 0, lambda event: None)
            with nullcontext() if lives == float("inf") else pytest.raises(KilledError):
                driver.run()
    with TrialStore(tmp_path / "trials.sqlite") as store:
        assert store.trials() == expected


def mirrored(cell: Cell) -> Cell:
    """The same cell with the sides of its blocks swapped."""
    return Cell(tuple(Block(block.in2, block.op2, block.in1, block.op1) for block in cell.blocks))


def distinct(trials: list[Trial]) -> int:
    return len({trial.proposal.key("") for trial in trials})


def test_random_search_proposes_all_at_once_and_none_twice() -> None:
    strategy = Random(2, OPERATIONS, 1_000, 1, seed=0)
    proposals = strategy.ask()
    assert len(proposals) == len({proposal.cell for proposal in proposals}) == 1_000
    assert not strategy.ask()


def test_a_longer_random_search_begins_as_a_shorter_one_did() -> None:
    short, long = (Random(5, OPERATIONS, budget, 1, seed=4).ask() for budget in (20, 50))
    assert long[:20] == short
    assert Random(5, OPERATIONS, 20, 1, seed=5).ask() != short


@pytest.mark.parametrize("make", [Random, Evolution, Controller])
def test_a_space_that_is_too_small_ends_at_three_times_the_budget(make) -> None:
    trials = drive(make(1, ["identity"], 10, 1, 0))
    assert len(trials) == 30
    assert distinct(trials) == 3


def test_what_stood_in_a_proposal_s_place_is_not_proposed_again_and_counts_for_the_budget() -> None:
    """The first child of a population of one is replaced, first by a new cell, then by a repeat."""
    parent = Cell.parse("0:identity+0:identity")
    names = OPERATIONS[4:6]
    others = neighbours(parent, names)

    def run(second: Cell) -> list[Cell]:
        strategy = Evolution(1, names, 1 + len(others), 1, 0, lag=0, population=1)
        first = strategy.ask()[0]
        strategy.tell(Trial(0, Proposal(parent, first.budget), done(0.5)))
        cells, number = [parent], 1
        while ready := strategy.ask():
            cell = second if number == 1 else ready[0].cell
            # All but the parent fail, which so has all children.
            strategy.tell(Trial(number, Proposal(cell, 1), FAILED))
            cells.append(cell)
            number += 1
        return cells

    for second in others:
        assert sorted(map(str, run(second))) == sorted(map(str, [parent, *others]))
    repeated = run(parent)
    assert len(repeated) == 2 + len(others)
    assert set(repeated) == {parent, *others}


WRITTEN = ("progressive", "controller")
"""Strategies that propose cells in the order in which they were written."""


@pytest.mark.parametrize("name", [name for name in STRATEGIES if not name.startswith(WRITTEN)])
def test_what_is_drawn_is_canonical_and_of_the_epochs_asked_for(name: str) -> None:
    for trial in whole_run(name):
        assert trial.cell == trial.cell.canonical()
        assert trial.proposal.budget == 2


@pytest.mark.parametrize("retrain", [False, True])
def test_a_longer_evolution_of_the_same_population_begins_as_a_shorter_one_did(retrain: bool) -> None:
    short, long = (
        drive(Evolution(3, OPERATIONS, budget, 1, 4, lag=8, population=20, retrain=retrain))
        for budget in (50, 90)
    )
    assert long[:50] == short


@pytest.mark.parametrize("make", [Random, Evolution])
@pytest.mark.parametrize("operations", [OPERATIONS, OPERATIONS[:1]])
def test_plans_are_kept(make, operations: tuple[str, ...]) -> None:
    strategy = make(1, operations, 40, 1, 0)
    trials = drive(strategy)
    assert len(trials) == strategy.planned


@pytest.mark.parametrize(("blocks", "names"), [(5, OPERATIONS), (1, OPERATIONS[:3]), (1, OPERATIONS[:1])])
@pytest.mark.parametrize("population", [30, 45])
def test_evolution_with_nothing_but_a_random_phase_is_random_search(blocks, names, population: int) -> None:
    budget = 30 if names == OPERATIONS else 10
    found = drive(Evolution(blocks, names, budget, 3, 8, population=population))
    assert found == drive(Random(blocks, names, budget, 3, 8))


FAILED = Measurement("failed", {}, "the loss is not finite")
SIZE = 20


def evolution(lag: int = 5, **options) -> Evolution:
    """One whose parents are the best of all that live, as good as surely."""
    return Evolution(5, OPERATIONS, 80, 1, 0, lag, population=SIZE, sample=1_000, **options)


def parents(strategy: Strategy, measured: Callable[[int], Measurement]) -> dict[int, int]:
    """The parents' numbers by the children's."""
    return {
        number: int(proposal.note["parent"])
        for number, proposal in enumerate(proposals_of(strategy, measured))
        if proposal.note
    }


@pytest.mark.parametrize("lag", [0, 1, 5, 16, 30])
def test_evolution_sees_exactly_the_results_before_its_lag(lag: int) -> None:
    """Where each child is better than all before it, the last that is seen is the parent."""
    first = max(SIZE, lag + 1)
    found = parents(evolution(lag), lambda number: done(number / 100))
    assert found == {number: number - lag - 1 for number in range(first, 80)}


@pytest.mark.parametrize("lag", [0, 5, 30])
def test_evolution_proposes_all_that_may_see_no_more(lag: int) -> None:
    strategy = evolution(lag)
    proposals = list(strategy.ask())
    assert len(proposals) == max(SIZE, lag + 1)
    for told in range(40):
        strategy.tell(Trial(told, proposals[told], done(0.5)))
        proposals += strategy.ask()
        assert len(proposals) == max(SIZE, told + 1 + lag + 1)


@pytest.mark.parametrize("measured", [lambda number: done(1 - number / 100), lambda number: done(0.5)])
def test_the_oldest_dies_however_good_it_is(measured) -> None:
    """Where each child is worse than all before it, or as good, the oldest that lives is the parent."""
    found = parents(evolution(lag=5), measured)
    assert found == {number: max(0, number - 5 - SIZE) for number in range(SIZE, 80)}


def test_a_lower_validation_loss_breaks_ties() -> None:
    found = parents(evolution(lag=5), lambda number: done(0.5, validation_loss=1 - number / 100))
    assert found == {number: number - 6 for number in range(SIZE, 80)}


@pytest.mark.parametrize("nothing", [FAILED, Measurement("done", {}), done(float("nan"))])
def test_what_failed_counts_but_neither_enters_nor_ages_anybody(nothing: Measurement) -> None:
    found = parents(evolution(lag=5), lambda n: nothing if n % 3 else done(1 - n / 100))
    alive = {number: [n for n in range(number - 5) if n % 3 == 0][-SIZE:] for number in range(SIZE, 80)}
    assert found == {number: members[0] for number, members in alive.items()}


def test_an_empty_population_draws_at_random() -> None:
    strategy = Evolution(5, OPERATIONS, 40, 1, 2, lag=3, population=8)
    found = proposals_of(strategy, lambda number: FAILED if number < 15 else done(0.5))
    drawn = Random(5, OPERATIONS, 40, 1, 2).ask()
    assert found[:19] == drawn[:19]
    assert all(proposal.note["parent"] >= 15 for proposal in found[19:])


def test_an_objective_in_place_of_accuracy() -> None:
    def measured(number: int) -> Measurement:
        return done(number / 100, parameters=float(number))

    smallest = parents(evolution(lag=5, objective=Parameters()), measured)
    assert smallest == {number: max(0, number - 5 - SIZE) for number in range(SIZE, 80)}
    assert parents(evolution(lag=5, objective=Accuracy()), measured) == parents(evolution(lag=5), measured)


@pytest.mark.parametrize("retrain", [False, True])
def test_children_are_neighbours_of_what_stood_in_their_parent_s_place(retrain: bool) -> None:
    elsewhere = {
        number: Proposal(draw(5, OPERATIONS, np.random.default_rng(number)), 1) for number in (3, 40)
    }
    good = {proposal.cell for proposal in elsewhere.values()}

    def evaluate(proposal: Proposal) -> Measurement:
        return done(0.9) if proposal.cell in good else done(0.5)

    trials = drive(evolution(retrain=retrain), stored=elsewhere, evaluate=evaluate)
    children = [trial for trial in trials if "parent" in trial.proposal.note]
    assert set(elsewhere) <= {trial.proposal.note["parent"] for trial in children}
    for child in children:
        parent = trials[int(child.proposal.note["parent"])].cell
        assert child.cell in neighbours(parent, OPERATIONS) or (retrain and child.cell == parent.canonical())


def test_no_mutation_is_proposed_twice_while_there_are_others() -> None:
    trials = drive(Evolution(2, OPERATIONS, 400, 1, 0))
    assert len(trials) == distinct(trials) == 400


def test_retraining_makes_replicas_of_cells_that_come_up_again() -> None:
    trials = drive(Evolution(2, OPERATIONS[:2], 200, 1, 0, retrain=True))
    assert len(trials) == distinct(trials) == 200
    replicas: dict[Cell, list[int]] = {}
    for trial in trials:
        replicas.setdefault(trial.cell, []).append(trial.proposal.replica)
    assert all(numbers == list(range(len(numbers))) for numbers in replicas.values())
    assert max(map(len, replicas.values())) > 3
    again = [t for t in trials if t.proposal.note and t.cell == trials[int(t.proposal.note["parent"])].cell]
    assert again


def test_exhaustive_search_takes_every_cell_once_and_then_once_more() -> None:
    trials = drive(Exhaustive(3, OPERATIONS[4:6], 0, 2, 1, 0))
    sizes = [10, 165, 3840]
    assert len(trials) == distinct(trials) == 2 * sum(sizes)
    first, second = trials[: sum(sizes)], trials[sum(sizes) :]
    assert [trial.cell for trial in first] == [trial.cell for trial in second]
    assert {trial.proposal.replica for trial in first} == {0}
    assert {trial.proposal.replica for trial in second} == {1}
    assert [sum(len(trial.cell.blocks) == level for trial in first) for level in (1, 2, 3)] == sizes


def test_a_sample_of_cells_is_of_the_last_level_that_is_reached_and_uniform() -> None:
    assert level_sizes(3, OPERATIONS, 0) == [136, 31_620, 10_979_688]
    assert level_sizes(3, OPERATIONS[:2], 175) == [10, 165]
    assert level_sizes(3, OPERATIONS[:2], 176) == [10, 165, 1]
    drawn = np.zeros(165)
    cells = [proposal.cell for proposal in Exhaustive(2, OPERATIONS[:2], 0, 1, 1, 0).ask()[10:]]
    for seed in range(200):
        sample = Exhaustive(2, OPERATIONS[:2], 76, 1, 1, seed).ask()[10:]
        assert len({proposal.cell for proposal in sample}) == 66
        for proposal in sample:
            drawn[cells.index(proposal.cell)] += 1
    # Binomial with n 200 and p 0.4: mean 80, standard deviation 7.
    assert 80 - 5 * 7 < drawn.min() <= drawn.max() < 80 + 5 * 7


def test_a_larger_sample_of_cells_holds_a_smaller_one() -> None:
    small, large = (
        {proposal.cell for proposal in Exhaustive(2, OPERATIONS[:2], cells, 1, 1, 5).ask()}
        for cells in (40, 90)
    )
    assert small < large


def test_a_cell_is_trained_at_least_once() -> None:
    with pytest.raises(StrategyError, match="replicas 0, allowed is 1 and more"):
        Exhaustive(2, OPERATIONS, 0, 0, 1, 0)


def test_evolution_finds_better_cells_than_random_search() -> None:
    def best(strategy: Strategy) -> float:
        return true_accuracy(
            max((trial for trial in drive(strategy) if trial.done), key=lambda t: t.order).cell
        )

    evolved, drawn = (
        np.mean([best(make(5, OPERATIONS, 200, 1, seed)) for seed in range(3)])
        for make in (Evolution, Random)
    )
    assert evolved > drawn + 0.01


@pytest.mark.parametrize("make", [Random, Evolution, Controller, Local, Bananas])
class TestFailures:
    def test_twenty_in_a_row_end_a_search(self, make) -> None:
        def measured(number: int) -> Measurement:
            return done(0.5) if number < 7 else Measurement("failed", {}, f"error {number}")

        strategy = make(5, OPERATIONS, 60, 1, 0)
        proposals = list(strategy.ask())
        for number in range(7 + MOST - 1):
            strategy.tell(Trial(number, proposals[number], measured(number)))
            proposals += strategy.ask()
        number += 1
        with pytest.raises(
            StrategyError, match=f"20 children failed .* {re.escape(str(proposals[7].cell))}: error 7$"
        ):
            strategy.tell(Trial(number, proposals[number], measured(number)))

    def test_a_success_among_them_lets_it_go_on(self, make) -> None:
        found = proposals_of(
            make(5, OPERATIONS, 60, 1, 0), lambda number: done(0.5) if number % MOST == 0 else FAILED
        )
        assert len(found) == 60


@pytest.mark.parametrize(
    ("budget", "population", "sample"),
    [(1, 20, 5), (100, 20, 5), (300, 30, 7), (999, 99, 24), (1_160, 100, 25), (20_000, 100, 25)],
)
def test_defaults_follow_the_budget(budget: int, population: int, sample: int) -> None:
    assert size_of(0, budget) == population
    assert sample_of(0, population) == sample
    assert (size_of(7, budget), sample_of(3, population), sample_of(0, 4)) == (7, 3, 2)


def test_a_population_of_more_than_half_the_budget_is_worth_a_note() -> None:
    assert note_on_population(40) is None
    assert note_on_population(60, population=30) is None
    assert "20 of 39 children are drawn at random" in str(note_on_population(39))
    assert "10 of 10 children are drawn at random" in str(note_on_population(10))
    assert "budget of 62 and more" in str(note_on_population(60, population=31))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": 0}, StrategyError, "budget 0, allowed is 1 and more"),
        ({"lag": -1}, StrategyError, "lag -1, allowed is 0 and more"),
        ({"population": -5}, StrategyError, "population -5, allowed"),
        ({"sample": -5}, StrategyError, "sample -5, allowed"),
        ({"blocks": 6}, CellError, "6 blocks, allowed are 1 to 5"),
        ({"operations": ["sep9x9"]}, CellError, "unknown operation 'sep9x9'"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict = {"blocks": 5, "operations": OPERATIONS, "budget": 10, "epochs": 1, "seed": 0}
    with pytest.raises(error, match=message):
        Evolution(**(arguments | options))
    if not {"lag", "population", "sample"} & set(options):
        with pytest.raises(error, match=message):
            Random(**(arguments | options))
