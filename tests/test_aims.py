"""Searches for more than accuracy: costs beside it, and limits, of every strategy."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from pnas_fast.candidates import canonical_keys, expand, one_block_cells
from pnas_fast.objectives import AdditiveCost
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.objectives.counted import counted
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.limits import Bound
from pnas_fast.protocols import Event, Measurement, Proposal, Said, Strategy, Trial
from pnas_fast.space import OPERATIONS, Cell
from pnas_fast.strategies import fitting
from pnas_fast.strategies.aimed_growing import grow_by
from pnas_fast.strategies.bananas import Bananas
from pnas_fast.strategies.controller import Controller
from pnas_fast.strategies.evolution import Evolution
from pnas_fast.strategies.exhaustive import Exhaustive
from pnas_fast.strategies.local import Local
from pnas_fast.strategies.population import Population
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.strategies.random import Random
from pnas_fast.surrogate import Growth, Surrogate, grow
from strategy_runs import KilledError, Memo, drive
from test_dominance import layers_of_many

pytestmark = pytest.mark.usefixtures("few_steps")

COSTS = counted(Deployment(1, 8, (1, 8, 8), 10))
PARAMETERS, MULTIPLY_ADDS = COSTS["parameters"], COSTS["multiply_adds"]
SIDE = AdditiveCost("latency_ms", "ms", np.linspace(0.1, 2, 24).reshape(3, 8), np.arange(1.0, 6.0))


def limited(most: float, cost: AdditiveCost = PARAMETERS) -> Aims:
    return Aims((), ((cost, Bound(cost.name, most)),))


BOTH = Aims((PARAMETERS, SIDE), ((MULTIPLY_ADDS, Bound("multiply_adds", 400_000)),))
OPS = OPERATIONS[:2] + OPERATIONS[4:6]

Make = Callable[[Aims], Strategy]

STRATEGIES: dict[str, Make] = {
    "random": lambda aims: Random(3, OPERATIONS, 40, 2, 3, aims),
    "evolution": lambda aims: Evolution(3, OPERATIONS, 50, 2, 3, lag=4, population=12, aims=aims),
    "evolution with retraining": lambda aims: Evolution(
        2, OPS, 50, 2, 3, lag=4, population=12, retrain=True, aims=aims
    ),
    "local": lambda aims: Local(3, OPERATIONS, 40, 2, 3, 4, aims),
    "bananas": lambda aims: Bananas(3, OPERATIONS, 40, 2, 3, 4, 20, "paths", aims=aims),
    "controller": lambda aims: Controller(2, OPERATIONS, 40, 2, 3, 4, 10, "table", rate=0.5, aims=aims),
    "exhaustive": lambda aims: Exhaustive(2, OPS[:2], 0, 1, 2, 3, aims),
    "progressive": lambda aims: Progressive(Growth(3, 6, OPS, "paths"), 2, 3, aims=aims),
    "progressive that explores": lambda aims: Progressive(
        Growth(3, 6, OPS, "paths"), 2, 3, aims=aims, explore=0.3
    ),
}


@cache
def limited_run(name: str) -> list[Trial]:
    return drive(STRATEGIES[name](BOTH))


@pytest.mark.parametrize("name", STRATEGIES)
class TestAnyStrategy:
    def test_limits_are_kept_where_cells_can_keep_them(self, name: str) -> None:
        trials = limited_run(name)
        assert {BOTH.violation(trial.cell) for trial in trials} == {0.0}
        assert len({trial.cell.canonical() for trial in trials}) >= 15

    def test_workers_and_kills_have_no_influence(self, name: str) -> None:
        assert drive(STRATEGIES[name](BOTH), workers=5, seed=1) == limited_run(name)
        memo: Memo = {}
        with pytest.raises(KilledError):
            drive(STRATEGIES[name](BOTH), memo, workers=3, lives=9)
        assert drive(STRATEGIES[name](BOTH), memo) == limited_run(name)

    def test_a_limit_that_everything_keeps_changes_nothing(self, name: str) -> None:
        assert drive(STRATEGIES[name](limited(1e9))) == drive(STRATEGIES[name](ACCURACY_ALONE))

    def test_a_limit_that_nothing_keeps_still_gives_trials(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fitting, "LIMITED_TRIES", 40)
        trials = drive(STRATEGIES[name](limited(1)))
        assert len(trials) >= 1
        free = [PARAMETERS.of(trial) for trial in drive(STRATEGIES[name](ACCURACY_ALONE)) if trial.done]
        found = [PARAMETERS.of(trial) for trial in trials if trial.done]
        assert np.mean(found) <= np.mean(free)


def test_what_nothing_keeps_is_said_once() -> None:
    events = list[Event]()
    drive(Progressive(Growth(3, 4, OPS[:2], "paths"), 2, 3, events.append, aims=limited(1)))
    said = [event.text for event in events if isinstance(event, Said)]
    assert said == ["NO cell of level 1 keeps parameters<=1: what breaks it least is trained"]


def test_a_search_ends_where_nothing_larger_keeps_its_limits() -> None:
    events = list[Event]()
    most = np.partition(PARAMETERS.before(expand(one_block_cells(OPS), OPS).codes), 3)[3]
    strategy = Progressive(Growth(3, 4, OPS, "paths"), 2, 3, events.append, aims=limited(float(most)))
    trials = drive(strategy)
    assert {len(trial.cell) for trial in trials} == {1, 2}
    assert strategy.planned == len(trials)
    said = [event.text for event in events if isinstance(event, Said)]
    assert said == [
        f"NO cell of level 3 keeps parameters<={most:.12g}: the search ends with cells of level 2"
    ]


def fitted() -> Surrogate:
    surrogate = Surrogate("paths", seed=0)
    codes = one_block_cells(OPS)
    surrogate.fit([codes], [np.random.default_rng(0).random(len(codes))])
    return surrogate


class TestGrowing:
    PARENTS = one_block_cells(OPS)
    SURROGATE = fitted()

    def grown(self, aims: Aims, beam: int = 20, explore: float = 0.0, blocks: int = 3) -> list[list[int]]:
        found = grow_by(
            self.PARENTS, self.SURROGATE, Growth(blocks, beam, OPS), aims, explore, lambda done, of: None
        )
        np.testing.assert_array_equal(found.grown.predicted, self.SURROGATE.predict(found.grown.codes))
        return found.grown.codes.reshape(len(found.grown.codes), -1).tolist()

    @pytest.mark.parametrize("beam", [1, 7, 100, 10_000])
    @pytest.mark.parametrize("aims", [ACCURACY_ALONE, limited(1e9)])
    def test_accuracy_alone_is_the_choice_without_aims_bit_for_bit(self, beam: int, aims: Aims) -> None:
        plain = grow(self.PARENTS, self.SURROGATE, Growth(3, beam, OPS), lambda done, of: None)
        assert self.grown(aims, beam) == plain.codes.reshape(len(plain.codes), -1).tolist()

    def test_layers_are_those_of_brute_force(self) -> None:
        candidates = expand(self.PARENTS, OPS)
        codes = candidates.codes
        aims = Aims((PARAMETERS,), ((SIDE, Bound("latency_ms", 6.0)),))
        codes = codes[SIDE.before(codes) <= 6.0]
        accuracy = self.SURROGATE.predict_members(codes).mean(axis=0)
        points = np.stack([-accuracy, PARAMETERS.before(codes)], axis=1)
        chosen = self.grown(aims, beam=200, blocks=2)
        assert len(chosen) == 200
        layers = layers_of_many(points)
        place = {tuple(row): index for index, row in enumerate(codes.reshape(len(codes), -1).tolist())}
        found = [layers[place[tuple(row)]] for row in chosen]
        assert found == sorted(layers)[:200]

    def test_exploring_adds_what_members_disagree_about(self) -> None:
        plain, some = (self.grown(BOTH, 20, explore, blocks=2) for explore in (0.0, 0.25))
        assert len(some) == 20
        everything = self.grown(BOTH, 20, 1.0, blocks=2)
        assert len({tuple(row) for row in everything}) == len({tuple(row) for row in some}) == 20
        explored = np.array(some[15:], np.int8).reshape(-1, 2, 4)
        deviation = self.SURROGATE.predict_members(explored).std(axis=0)
        assert deviation.tolist() == sorted(deviation.tolist(), reverse=True)
        assert plain != some

    def test_only_costs_that_grow_drop_cells_before_the_last_level(self) -> None:
        falls = AdditiveCost("latency_ms", "ms", SIDE.table, np.array([9.0, 8, 1, 1, 1]))
        assert not falls.grows
        assert self.grown(limited(5.0, falls)) == self.grown(ACCURACY_ALONE)
        assert self.grown(limited(5.0, falls), blocks=2) != self.grown(ACCURACY_ALONE)


def trial(number: int, cell: str, accuracy: float) -> Trial:
    return Trial(number, Proposal(Cell.parse(cell), 1), Measurement("done", {"accuracy": accuracy}))


def test_parents_go_by_limits_then_layers_then_crowding_then_age() -> None:
    large, middle, small = "0:sep7x7+1:sep7x7", "0:sep3x3+1:identity", "1:identity+1:identity"
    assert (
        PARAMETERS.of(trial(0, large, 1))
        > PARAMETERS.of(trial(0, middle, 1))
        > PARAMETERS.of(trial(0, small, 1))
    )
    members = [
        trial(0, large, 0.9),
        trial(1, middle, 0.8),
        trial(2, small, 0.7),
        trial(3, middle, 0.6),  # dominated
        trial(4, middle, 0.8),  # a copy of 1
    ]
    population = Population(9, 1, aims=Aims((PARAMETERS,)))
    for member in members:
        population.add(member)
    assert sorted(range(5), key=lambda number: population._sorted()[number]) == [0, 2, 1, 4, 3]
    most = PARAMETERS.of(members[1])
    population = Population(9, 1, aims=Aims((PARAMETERS,), ((PARAMETERS, Bound("parameters", most)),)))
    for member in members:
        population.add(member)
    assert sorted(range(5), key=lambda number: population._sorted()[number]) == [1, 2, 4, 3, 0]


def test_evolution_finds_a_front_that_random_search_does_not() -> None:
    aims = Aims((PARAMETERS,))
    reference = aims.reference(3, OPERATIONS)
    reference[0] = -0.65
    evolved = drive(Evolution(3, OPERATIONS, 100, 2, 0, lag=2, population=20, aims=aims))
    drawn = drive(Random(3, OPERATIONS, 100, 2, 0))
    assert aims.hypervolume(evolved, reference) > aims.hypervolume(drawn, reference)


def test_a_reference_is_the_limit_or_the_most_that_a_cell_can_cost() -> None:
    aims = Aims((PARAMETERS, SIDE), ((SIDE, Bound("latency_ms", 4.5)),))
    codes = expand(one_block_cells(OPS), OPS).codes
    reference = aims.reference(2, OPS)
    assert reference.tolist() == [0.0, PARAMETERS.before(codes).max(), 4.5]
    assert np.unique(canonical_keys(codes)).size == len(codes)
