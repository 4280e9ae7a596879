"""Made-up searches for tests of the surrogate: random cells and an accuracy they could have."""

import numpy as np
import numpy.typing as npt

from pnas_fast.candidates import Candidates, expand
from pnas_fast.space import Codes
from pnas_fast.surrogate import PREDICTORS, Surrogate

NETWORKS = ("mlp", "lstm")
"""The predictors that are trained step by step."""


def random_cells(rng: np.random.Generator, cells: int, blocks: int) -> Codes:
    """Valid codes (cells, blocks, 4), sides in any order."""
    sources = rng.integers(0, 2 + np.arange(blocks)[:, None], (cells, blocks, 2))
    operations = rng.integers(0, 8, (cells, blocks, 2))
    return np.stack([sources, operations], axis=3).reshape(cells, blocks, 4).astype(np.int8)


def random_candidates(rng: np.random.Generator, parents: int, blocks: int) -> Candidates:
    """The candidates of ``blocks`` blocks that random parents expand to."""
    return expand(random_cells(rng, parents, blocks - 1))


def accuracy(codes: Codes, seed: int = 0) -> npt.NDArray[np.float64]:
    """An accuracy that operations, their pairings and depth decide, between about 0.5 and 0.9."""
    rng = np.random.default_rng(seed)
    worth, pairing = rng.normal(size=8), rng.normal(size=(8, 8))
    in1, op1, in2, op2 = np.moveaxis(codes.astype(np.int64), 2, 0)
    blocks = worth[op1] + worth[op2] + 0.5 * (pairing[op1, op2] + pairing[op2, op1])
    depth = ((in1 >= 2) | (in2 >= 2)).sum(axis=1)
    logit: npt.NDArray[np.float64] = 0.9 + 0.3 * blocks.mean(axis=1) + 0.1 * depth
    return 1 / (1 + np.exp(-logit))


def fitted(predictor: str, seed: int = 0, trials: int = 40) -> Surrogate:
    """A surrogate fitted to a few trials of 1 to 3 blocks."""
    rng = np.random.default_rng(seed)
    codes = [random_cells(rng, trials, blocks) for blocks in (1, 2, 3)]
    surrogate = Surrogate(predictor, seed=seed)
    surrogate.fit(codes, [accuracy(group) for group in codes])
    return surrogate


def scores_of_all_predictors() -> npt.NDArray[np.float64]:
    """Everything from seeds to scores, (3, E, M)."""
    candidates = random_candidates(np.random.default_rng(0), 3, 3)
    return np.stack([fitted(predictor, seed=2).score(candidates) for predictor in PREDICTORS])
