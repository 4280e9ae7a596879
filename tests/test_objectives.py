"""Objectives and Pareto fronts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.objectives import Accuracy, MultiplyAdds, Parameters, pareto_front
from pnas_fast.protocols import Measurement, Objective, Proposal, Trial
from pnas_fast.space import Cell

VALUES = {"accuracy": 0.75, "parameters": 1_000.0, "multiply_adds": 5e6}
PROPOSAL = Proposal(Cell.parse("0:sep3x3+1:identity"), 1)


@pytest.mark.parametrize("objective", [Accuracy(), Parameters(), MultiplyAdds()])
def test_an_objective_is_read_off_a_trial(objective: Objective) -> None:
    assert objective.unit == ""
    assert objective.maximise == (objective.name == "accuracy")
    assert objective.of(Trial(0, PROPOSAL, Measurement("done", VALUES))) == VALUES[objective.name]
    assert math.isnan(objective.of(Trial(0, PROPOSAL, Measurement("done", {}))))
    assert math.isnan(objective.of(Trial(0, PROPOSAL, Measurement("failed", VALUES, "error"))))


POINT = st.tuples(st.integers(0, 9) | st.just(math.nan), st.integers(0, 9) | st.just(math.nan))


@given(st.lists(POINT, max_size=30))
def test_the_front_is_what_nothing_else_beats(points: list[tuple[float, float]]) -> None:
    items = list(enumerate(points))
    front = pareto_front(items, lambda item: item[1][0], lambda item: item[1][1])

    known = [point for point in points if not any(map(math.isnan, point))]
    unbeaten = {
        (cost, accuracy)
        for cost, accuracy in known
        if not any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in known)
    }
    assert [point for _, point in front] == sorted(unbeaten)
    assert [index for index, _ in front] == [points.index(point) for _, point in front]
