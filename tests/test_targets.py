"""What the surrogate of a progressive search learns: accuracies, or targets from validation losses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.protocols import Measurement, Noted, Proposal, StrategyError, Trial
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.parts import make_strategy
from pnas_fast.space import OPERATIONS
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.strategies.targets import targets
from pnas_fast.surrogate import Growth, rank_correlation
from strategy_runs import drive, measure

GROWTH = Growth(2, 6, OPERATIONS[:3], "paths")


def by_loss(proposal: Proposal) -> Measurement:
    """Accuracies and losses that order cells the other way round: what was learned shows."""
    measured = measure(proposal)
    if not measured.done:
        return measured
    accuracy = measured.values["accuracy"]
    return Measurement("done", {"accuracy": accuracy, "validation_loss": accuracy})


def run(learn: str) -> tuple[list[Trial], list[dict[str, Any]]]:
    notes = list[dict[str, Any]]()

    def emit(event: object) -> None:
        if isinstance(event, Noted) and event.kept:
            notes.append(dict(event.values))

    return drive(Progressive(GROWTH, 1, 0, emit, learn), evaluate=by_loss), notes


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), min_size=1, max_size=3))
def test_lower_losses_have_targets_no_lower_all_between_a_tenth_and_nine(groups: list[list[float]]) -> None:
    losses = [np.array(group) for group in groups]
    found = targets(losses, "loss")
    assert [len(group) for group in found] == [len(group) for group in losses]
    flat = np.concatenate(found)[np.argsort(np.concatenate(losses))]
    assert (np.diff(flat) <= 0).all()
    assert flat.min() >= 0.1 - 1e-12
    assert flat.max() <= 0.9 + 1e-12


def test_the_worst_twentieth_is_cut_off() -> None:
    losses = np.append(np.linspace(1, 2, 96), [3.0, 9.0, 1e30, 1e300])
    (found,) = targets([losses], "loss")
    assert found[0] == pytest.approx(0.9)
    assert found[47] == pytest.approx(0.9 - 0.8 * (losses[47] - 1) / (np.quantile(losses, 0.95) - 1))
    assert found[-5:] == pytest.approx(0.1, abs=1e-3)


def test_equal_losses_have_equal_targets() -> None:
    one, two = targets([np.full(3, 1.5), np.full(2, 1.5)], "loss")
    assert set(one) == set(two) == {0.5}


def test_accuracies_are_learned_as_they_are() -> None:
    values = [np.array([0.1, 0.95]), np.array([0.0])]
    assert all(a is b for a, b in zip(targets(values, "accuracy"), values, strict=True))


def test_cells_are_chosen_by_what_is_learned_and_rho_is_with_accuracies() -> None:
    accurate, lossy = run("accuracy"), run("loss")
    first = sum(len(trial.cell) == 1 for trial in accurate[0])
    assert [t.cell for t in accurate[0][:first]] == [t.cell for t in lossy[0][:first]]
    means = [np.nanmean([t.accuracy for t in trials[first:]]) for trials, _ in (accurate, lossy)]
    assert means[0] > means[1]
    assert accurate[1][0]["rho_after"] > 0.5
    assert lossy[1][0]["rho_after"] < -0.5
    for trials, notes in (accurate, lossy):
        predicted = np.array([t.proposal.note["predicted"] for t in trials[first:]], np.float64)
        measured = np.array([t.accuracy for t in trials[first:]])
        assert notes[1]["rho_before"] == rank_correlation(predicted, measured)


@pytest.mark.parametrize("values", [{}, {"validation_loss": float("nan")}, {"validation_loss": float("inf")}])
def test_the_first_child_without_a_loss_ends_a_search_that_learns_it(values: dict[str, float]) -> None:
    def evaluate(proposal: Proposal) -> Measurement:
        return Measurement("done", {"accuracy": 0.5, **values})

    with pytest.raises(StrategyError, match=r"child \d+ has validation_loss .*--learn accuracy") as raised:
        drive(Progressive(GROWTH, 1, 0, learn="loss"), evaluate=evaluate)
    assert "\n" not in str(raised.value)
    assert drive(Progressive(GROWTH, 1, 0), evaluate=evaluate)


def test_the_option_reaches_the_strategy() -> None:
    config = SearchConfig(
        blocks=2, beam=6, operations=OPERATIONS[:3], epochs=1, finalists=0, predictor="paths", learn="loss"
    )
    assert drive(make_strategy(config), evaluate=by_loss) == run("loss")[0]
