"""How many one-block cells a surrogate needs to choose two-block ones, on a table of trainings.

    python bench/first_level.py two-blocks

Fitted to the first replicas of so many one-block cells, balanced (`pnas_fast.strategies.first_level`) or
drawn at random: Spearman's ρ of what it predicts for the table's two-block cells with their test accuracy,
and the gain, by how many standard deviations the best 30 by prediction are better than the mean of all. Means
over draws. The table may be unfinished: what is there is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pnas_fast.evaluation.table import read_table
from pnas_fast.space import Codes
from pnas_fast.strategies.first_level import balanced
from pnas_fast.surrogate import PREDICTORS, Surrogate, rank_correlation
from table import FOLDER, TABLES

CHOSEN = 30
COUNTS = (24, 32, 48, 72, 100, 136)

Floats = npt.NDArray[np.float64]


class Level(NamedTuple):
    """Cells of one size (n, blocks, 4), and what was measured of each."""

    codes: Codes
    accuracies: Floats
    test: Floats


def level_of(name: str, blocks: int) -> Level:
    """A table's cells of so many blocks, by their first replica."""
    trials = [
        trial
        for trial in read_table(FOLDER / f"{name}.csv.gz")
        if trial.done and trial.proposal.replica == 0 and len(trial.cell) == blocks
    ]
    return Level(
        np.array([trial.cell.codes for trial in trials], dtype=np.int8),
        np.array([trial.accuracy for trial in trials]),
        np.array([trial.value("test_accuracy") for trial in trials]),
    )


def places(codes: Codes, count: int, seed: int, how: str) -> list[int]:
    """Which of the one-block cells are trained: ``how`` is "balanced" or "random"."""
    if how == "random":
        order: list[int] = np.random.default_rng(seed).permutation(len(codes)).tolist()
        return order[:count]
    taken = {row.tobytes() for row in balanced(codes, count, seed)}
    return [place for place, row in enumerate(codes) if row.tobytes() in taken]


def choice(predictor: str, seen: Level, others: Level, seed: int) -> tuple[float, float]:
    """ρ and gain of one fit."""
    surrogate = Surrogate(predictor, seed=seed, refit="scratch")
    surrogate.fit([seen.codes], [seen.accuracies])
    predicted = surrogate.predict(others.codes)
    chosen = others.test[np.argsort(-predicted, kind="stable")[:CHOSEN]]
    found = rank_correlation(predicted, others.test)
    gain = (chosen.mean() - others.test.mean()) / others.test.std()
    return float("nan") if found is None else found, float(gain)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each number of cells and way to draw them."""
    parser = argparse.ArgumentParser(prog="bench/first_level.py", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TABLES)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--predictor", choices=PREDICTORS, default="mlp")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, metavar="N")
    wanted = parser.parse_args(arguments)
    first, second = level_of(wanted.name, 1), level_of(wanted.name, 2)
    print(f"{len(first.codes)} one-block cells, {len(second.codes):,} of two; best {CHOSEN} chosen")
    for how in ("balanced", "random"):
        for count in wanted.counts:
            found = []
            for seed in range(wanted.draws):
                taken = places(first.codes, count, seed, how)
                seen = Level(first.codes[taken], first.accuracies[taken], first.test[taken])
                found.append(choice(wanted.predictor, seen, second, seed))
            rho, gain = np.mean(found, axis=0)
            print(f"{how:8} {min(count, len(first.codes)):4}: ρ {rho:.2f}, gain {gain:.2f}", flush=True)


if __name__ == "__main__":
    main()
