"""BANANAS: its candidates, its sampling, what a round sees, and what it notes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pnas_fast.protocols import Event, Measurement, Noted, Proposal, Strategy, StrategyError, Trial
from pnas_fast.space import OPERATIONS, Cell, CellError
from pnas_fast.space.neighbours import draw, neighbours
from pnas_fast.strategies.acquisition import mutants, thompson
from pnas_fast.strategies.asked import Asked
from pnas_fast.strategies.bananas import INITIAL, PARENTS, ROUND, Bananas
from pnas_fast.strategies.random import Random
from pnas_fast.surrogate import SurrogateError, ensemble
from pnas_fast.surrogate.fitting import Schedule
from strategy_runs import drive, measure, true_accuracy

few_steps = pytest.mark.usefixtures("few_steps")

FAILED = Measurement("failed", {}, "the loss is not finite")


def done(accuracy: float) -> Measurement:
    return Measurement("done", {"accuracy": accuracy})


def trials_of(cells: Sequence[Cell], first: int = 0) -> list[Trial]:
    return [Trial(number, Proposal(cell, 1), done(0.5)) for number, cell in enumerate(cells, first)]


def edits(cell: Cell, other: Cell, operations: Sequence[str] = OPERATIONS) -> int:
    """How many edits one cell is from another: 0, 1, 2, or 3 for more."""
    if cell == other:
        return 0
    around = set(neighbours(other, operations))
    if cell in around:
        return 1
    return 2 if around & set(neighbours(cell, operations)) else 3


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_candidates_are_new_and_one_or_two_edits_from_their_parent(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    parents = trials_of([draw(blocks, OPERATIONS, rng) for _ in range(4)], first=7)
    asked = Asked(1_000)
    for parent in parents:
        asked.add(parent.proposal)
    taken = neighbours(parents[0].cell, OPERATIONS)[::2]
    for cell in taken:
        asked.add(Proposal(cell, 1))
    found = mutants(parents, OPERATIONS, 40, asked, rng)
    assert len(found) == 40
    assert not any(cell in asked for cell in found)
    distances = [edits(cell, parents[number - 7].cell.canonical()) for cell, number in found.items()]
    assert set(distances) == {1, 2}
    assert distances.count(1) > distances.count(2)
    assert set(found.values()) == {7, 8, 9, 10}


def test_a_space_that_is_used_up_has_few_candidates_or_none() -> None:
    names = OPERATIONS[:2]
    cell = Cell.parse("0:sep3x3+0:sep3x3")
    near = {cell} | {other for one in neighbours(cell, names) for other in [one, *neighbours(one, names)]}
    asked = Asked(100)
    asked.add(Proposal(cell, 1))
    found = mutants(trials_of([cell]), names, 100, asked, np.random.default_rng(0))
    assert found.keys() == near - {cell}
    for other in near:
        asked.add(Proposal(other, 1))
    assert mutants(trials_of([cell]), names, 100, asked, np.random.default_rng(0)) == {}


def test_a_thompson_draw_belongs_to_its_cell() -> None:
    rng = np.random.default_rng(0)
    cells = [draw(4, OPERATIONS, rng) for _ in range(12)]
    predictions = rng.random((5, 12))
    found = thompson(cells, predictions, 3, turn=2)
    order = rng.permutation(12)
    shuffled = thompson([cells[index].canonical() for index in order], predictions[:, order], 3, turn=2)
    np.testing.assert_array_equal(shuffled, found[order])
    np.testing.assert_array_equal(thompson(cells[:1], predictions[:, :1], 3, turn=2), found[:1])
    for seed, turn in ((4, 2), (3, 3)):
        assert not np.any(thompson(cells, predictions, seed, turn) == found)


def test_thompson_draws_have_the_members_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    cells = [draw(5, OPERATIONS, rng) for _ in range(2_000)]
    predictions = np.repeat([[0.4], [0.6]], len(cells), axis=1)
    found = thompson(cells, predictions, 0, turn=0)
    assert found.mean() == pytest.approx(0.5, abs=0.01)
    assert found.std() == pytest.approx(0.1, rel=0.05)


def told(
    strategy: Strategy, measured: Callable[[int], Measurement]
) -> tuple[list[Proposal], list[tuple[int, int]]]:
    """All proposals where a trial depends on its number alone, and (told, proposed) after each ask."""
    proposals, number = list(strategy.ask()), 0
    counts = [(0, len(proposals))]
    while number < len(proposals):
        strategy.tell(Trial(number, proposals[number], measured(number)))
        proposals += strategy.ask()
        number += 1
        counts.append((number, len(proposals)))
    return proposals, counts


def bananas(lag: int, budget: int = 64, **options: Any) -> Bananas:
    return Bananas(5, OPERATIONS, budget, 1, 0, lag, candidates=20, **options)


@few_steps
@pytest.mark.parametrize("lag", [0, 3, 16, 35])
def test_a_round_sees_exactly_the_results_before_its_lag(lag: int) -> None:
    """Where each child is better than all before it, the last ten that are seen are the parents."""
    events = list[Event]()
    proposals, counts = told(bananas(lag, emit=events.append), lambda number: done(number / 100))
    assert len(proposals) == 64
    for first in range(INITIAL, 64, ROUND):
        seen = max(first - lag, 0)
        parents = {proposal.note.get("parent", -1) for proposal in proposals[first : first + ROUND]}
        assert parents <= (set(range(max(seen - PARENTS, 0), seen)) or {-1})
        assert len(parents) > 1 or seen <= 1
        # It is proposed as soon as those are told.
        assert dict(counts)[seen] >= min(64, first + ROUND)
        assert not seen or (dict(counts)[seen - 1], dict(counts)[seen]) == (first, min(64, first + ROUND))
    fitted = [event.values["fitted"] for event in events if isinstance(event, Noted)]
    assert fitted == [max(first - lag, 0) for first in range(INITIAL, 64, ROUND)]


@few_steps
def test_what_is_proposed_before_anything_is_seen_is_drawn_at_random() -> None:
    proposals, _ = told(bananas(30), lambda number: done(0.5))
    # Rounds begin at 20, 30, 40; the first result is seen from 31 on.
    assert proposals[:40] == Random(5, OPERATIONS, 40, 1, 0).ask()
    assert all("parent" in proposal.note for proposal in proposals[40:])


@few_steps
@pytest.mark.parametrize("nothing", [FAILED, Measurement("done", {}), done(float("nan")), done(float("inf"))])
def test_what_failed_counts_but_is_neither_fitted_nor_a_parent(nothing: Measurement) -> None:
    events = list[Event]()
    proposals, _ = told(
        bananas(5, emit=events.append), lambda number: nothing if number % 3 else done(number / 100)
    )
    assert len(proposals) == 64
    assert all(int(proposal.note.get("parent", 0)) % 3 == 0 for proposal in proposals)
    notes = [event.values for event in events if isinstance(event, Noted)]
    assert [note["fitted"] for note in notes] == [len(range(0, note["first"] - 5, 3)) for note in notes]


@few_steps
def test_no_cell_is_proposed_twice_and_each_is_near_its_parent() -> None:
    """The parent as it stood there, where stored proposals took the place of others."""
    elsewhere = {
        number: Proposal(draw(5, OPERATIONS, np.random.default_rng(number)), 1) for number in (3, 24)
    }
    good = {proposal.cell for proposal in elsewhere.values()}
    trials = drive(
        bananas(3), stored=elsewhere, evaluate=lambda proposal: done(0.9 if proposal.cell in good else 0.5)
    )
    assert len({trial.cell for trial in trials}) == len(trials) == 64
    children = [trial for trial in trials if trial.proposal.note]
    assert {3, 24} <= {trial.proposal.note["parent"] for trial in children}
    for child in children:
        assert edits(child.cell, trials[int(child.proposal.note["parent"])].cell.canonical()) in (1, 2)


@few_steps
def test_rounds_are_noted_the_same_but_for_seconds_whenever_they_are_replayed() -> None:
    def notes(workers: int) -> list[dict[str, Any]]:
        events = list[Event]()
        drive(bananas(5, emit=events.append), workers=workers)
        return [dict(event.values) for event in events if isinstance(event, Noted) and event.kept]

    one, seven = notes(1), notes(7)
    assert all(note.pop("strategy_seconds") >= 0 for note in [*one, *seven])
    assert one == seven
    assert [note["turn"] for note in one] == [0, 1, 2, 3, 4]
    assert [note["first"] for note in one] == [20, 30, 40, 50, 60]
    assert [note["children"] for note in one] == [10, 10, 10, 10, 4]
    assert all(-1 <= note["rho"] <= 1 and note["candidates"] == 20 for note in one)


@few_steps
def test_only_differences_of_accuracies_matter_beside_their_range() -> None:
    """An eighth of each accuracy, which is exact, gives the same cells and an eighth of each prediction."""

    def run(factor: float) -> list[Trial]:
        def evaluate(proposal: Proposal) -> Measurement:
            return done(factor * measure(proposal).values.get("accuracy", 0.5))

        return drive(bananas(0), evaluate=evaluate)

    whole, eighth = run(1.0), run(0.125)
    assert [trial.cell for trial in whole] == [trial.cell for trial in eighth]
    for one, other in zip(whole[INITIAL:], eighth[INITIAL:], strict=True):
        assert other.proposal.note["predicted"] == pytest.approx(float(one.proposal.note["predicted"]) / 8)


@few_steps
@pytest.mark.parametrize("accuracy", [0.0, 0.1, 1.0])
def test_predictions_are_near_what_was_measured_whatever_that_is(accuracy: float) -> None:
    """Also where all are alike, or at an end of the range."""
    trials = drive(bananas(0, budget=30), evaluate=lambda proposal: done(accuracy))
    for trial in trials[INITIAL:]:
        assert trial.proposal.note["predicted"] == pytest.approx(accuracy, abs=1e-6)


@few_steps
def test_a_round_s_rank_correlation_is_of_what_was_predicted_for_it() -> None:
    """The children are as good as was predicted, but for one that failed and is left out."""
    events = list[Event]()
    strategy = bananas(0, budget=30, emit=events.append)
    proposals = list(strategy.ask())
    for number in range(30):
        predicted = proposals[number].note.get("predicted", number / 100)
        strategy.tell(Trial(number, proposals[number], done(float(predicted)) if number != 25 else FAILED))
        proposals += strategy.ask()
    (note,) = (event.values for event in events if isinstance(event, Noted))
    assert note["rho"] == pytest.approx(1)


@few_steps
@pytest.mark.parametrize("lag", [0, 16])
def test_a_longer_search_begins_as_a_shorter_one_did(lag: int) -> None:
    short, long = drive(bananas(lag, budget=43)), drive(bananas(lag, budget=62))
    assert long[:43] == short


@few_steps
def test_the_predictor_and_the_number_of_candidates_matter() -> None:
    runs = [
        [trial.cell for trial in drive(strategy)]
        for strategy in (
            bananas(0, 40),
            bananas(0, 40, predictor="lstm"),
            Bananas(5, OPERATIONS, 40, 1, 0, 0),
        )
    ]
    assert runs[0][:INITIAL] == runs[1][:INITIAL] == runs[2][:INITIAL]
    assert all(one != other for one, other in pairwise([*runs, runs[0]]))


@pytest.mark.slow
def test_it_finds_better_cells_than_random_search_and_knows_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Already with a surrogate that is fitted for a short while."""
    for name in ("FRESH", "FINETUNE"):
        monkeypatch.setattr(ensemble, name, Schedule(steps=80, batch=64, learning_rate=0.01))
    events = list[Event]()

    def best(strategy: Strategy) -> float:
        found = max((trial for trial in drive(strategy) if trial.done), key=lambda trial: trial.order)
        return true_accuracy(found.cell)

    searched = [best(Bananas(5, OPERATIONS, 150, 1, seed, emit=events.append)) for seed in range(2)]
    drawn = [best(Random(5, OPERATIONS, 150, 1, seed)) for seed in range(2)]
    assert np.mean(searched) > np.mean(drawn) + 0.005
    rhos = [event.values["rho"] for event in events if isinstance(event, Noted)]
    assert np.mean(rhos) > 0.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": 0}, StrategyError, "budget 0, allowed is 1 and more"),
        ({"lag": -1}, StrategyError, "lag -1, allowed is 0 and more"),
        ({"candidates": 9}, StrategyError, "candidates 9, allowed is 10 and more"),
        ({"predictor": "forest"}, SurrogateError, "predictor is 'forest', allowed are mlp lstm paths"),
        ({"blocks": 6}, CellError, "allowed are 1 to 5"),
        ({"operations": ["sep9x9"]}, CellError, "unknown operation 'sep9x9'"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "blocks": 5, "operations": OPERATIONS, "budget": 10, "epochs": 1, "seed": 0,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        Bananas(**(arguments | options))
