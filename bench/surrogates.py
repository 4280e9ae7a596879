"""How well each surrogate ranks cells that it has not seen, on a table of trainings.

    python bench/surrogates.py three-levels --blocks 3 --trials 150

For every predictor and either thing to learn: fitted to so many random cells' first replica, Spearman's ρ of
what it predicts for all others with their *test* accuracy; the mean over draws and its standard error. The
table may be unfinished: what is there is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from pnas_fast.evaluation.table import read_table
from pnas_fast.protocols import Trial
from pnas_fast.strategies.targets import LEARN, learned_value, targets
from pnas_fast.surrogate import PREDICTORS, Surrogate, rank_correlation
from table import FOLDER, TABLES


def correlation(
    predictor: str, learn: str, seen: Sequence[Trial], others: Sequence[Trial], seed: int
) -> float:
    """ρ of one fit; NaN where there is none."""
    surrogate = Surrogate(predictor, seed=seed, refit="scratch")
    values = np.array([learned_value(trial, learn) for trial in seen])
    surrogate.fit([np.array([trial.cell.codes for trial in seen])], targets([values], learn))
    predicted = surrogate.predict(np.array([trial.cell.codes for trial in others]))
    measured = np.array([trial.value("test_accuracy") for trial in others])
    found = rank_correlation(predicted, measured)
    return float("nan") if found is None else found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each predictor and thing to learn."""
    parser = argparse.ArgumentParser(prog="bench/surrogates.py", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TABLES)
    parser.add_argument("--blocks", type=int, default=3, help="of the cells")
    parser.add_argument("--trials", type=int, default=150, help="cells that are learned from")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--predictors", nargs="+", choices=PREDICTORS, default=["mlp", "paths"])
    wanted = parser.parse_args(arguments)
    rows = [
        trial
        for trial in read_table(FOLDER / f"{wanted.name}.csv.gz")
        if trial.done and trial.proposal.replica == 0 and len(trial.cell) == wanted.blocks
    ]
    print(f"{len(rows):,} cells of {wanted.blocks} blocks, {wanted.trials} learned from")
    orders = [np.random.default_rng([0, draw]).permutation(len(rows)) for draw in range(wanted.draws)]
    for predictor in wanted.predictors:
        for learn in LEARN:
            found = [
                correlation(
                    predictor,
                    learn,
                    [rows[place] for place in order[: wanted.trials]],
                    [rows[place] for place in order[wanted.trials :]],
                    draw,
                )
                for draw, order in enumerate(orders)
            ]
            error = np.std(found, ddof=1) / np.sqrt(len(found))
            print(f"{predictor:6} on {learn:9} ρ {np.mean(found):.3f} ± {error:.3f}", flush=True)


if __name__ == "__main__":
    main()
