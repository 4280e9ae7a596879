"""The comparison of surrogates: what can be known is ranked, what cannot is not."""

from __future__ import annotations

import numpy as np

from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.space import OPERATIONS
from pnas_fast.space.neighbours import draw
from strategy_runs import true_accuracy
from surrogates import correlation


def test_what_follows_from_cells_is_ranked_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    cells = [draw(2, OPERATIONS[:4], rng).canonical() for _ in range(300)]

    def trials(accuracies: list[float]) -> list[Trial]:
        return [
            Trial(number, Proposal(cell, 1), Measurement("done", {"accuracy": value, "test_accuracy": value}))
            for number, (cell, value) in enumerate(zip(cells, accuracies, strict=True))
        ]

    known = trials([true_accuracy(cell) for cell in cells])
    noise = trials(rng.uniform(size=len(cells)).tolist())
    assert correlation("paths", "accuracy", known[:150], known[150:], seed=0) > 0.7
    assert abs(correlation("paths", "accuracy", noise[:150], noise[150:], seed=0)) < 0.3
