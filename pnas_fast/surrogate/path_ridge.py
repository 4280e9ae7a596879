"""The path ensemble: ridge regressions on the paths and sides of cells, fitted in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from pnas_fast.space import CELL_INPUTS, OPERATIONS, Codes
from pnas_fast.surrogate.checks import Floats
from pnas_fast.surrogate.path_features import SIDES, STEMS, features, paths_of, side_feature
from pnas_fast.surrogate.prefix_tree import Chunk, PrefixTree

PENALTY = 30.0
"""λ. From 10 to 30 it made no difference on tabulated three-block cells, whether 60 or 150 of them were
fitted; with 3 and 100 it ranked the others equally or a little worse, with 300 clearly worse."""

GRID = 2.0**-40
"""Weights are multiples of it, about 1e-12. Sums of them below 8192 are exact in float64, so cells with equal
features have equal predictions to the bit, whichever way those were added up."""

_ROWS = 4096


class PathEnsemble:
    """Ridge regressions side by side: ``weights`` float64 (1192, E) and ``intercepts`` (E,).

    Predictions are not clipped to [0, 1]: that would make ties of the best.
    """

    def __init__(self, weights: Floats, intercepts: Floats) -> None:
        self.weights, self.intercepts = weights, intercepts

    @classmethod
    def fit(
        cls, codes: Sequence[Codes], targets: Sequence[Floats], uses: npt.NDArray[np.float32]
    ) -> PathEnsemble:
        """Fit each member to its trials.

        Args:
            codes: groups of trials, int8 (n, b, 4).
            targets: (n,) for each group.
            uses: (E, trials), 1 where a member is fitted to a trial.
        """
        known, values = np.concatenate([features(group) for group in codes]), np.concatenate(targets)
        fits = [ridge(known[rows], values[rows], PENALTY) for rows in uses.astype(np.bool_)]
        weights = np.stack([weight for weight, _ in fits], axis=1)
        intercepts = np.array([intercept for _, intercept in fits])
        return cls(_on_grid(weights), _on_grid(intercepts))

    def predict(self, codes: Codes) -> Floats:
        """Each member's prediction (E, M) of cells in codes (M, b, 4), from all their features."""
        parts = [
            features(codes[start : start + _ROWS]) @ self.weights for start in range(0, len(codes), _ROWS)
        ]
        found: Floats = np.concatenate([np.empty((0, len(self.intercepts))), *parts]) + self.intercepts
        return found.T

    def score(self, codes: Codes) -> Floats:
        """The same bits as `predict`, many times faster where candidates come by parent."""
        tree = PrefixTree(codes, torch.device("cpu"))
        scores = np.empty((len(self.intercepts), len(codes)))
        for start in range(0, len(codes), _ROWS):
            chunk = tree.chunk(start, _ROWS)
            scores[:, chunk.rows] = self._score_chunk(chunk).T
        return scores

    def _score_chunk(self, chunk: Chunk) -> Floats:
        """Scores (m, E): the parent's, what either side adds, less the paths that both sides add."""
        parents, parent = chunk.parents.numpy(), chunk.parent.numpy()
        in1, op1, in2, op2 = chunk.block.numpy().T
        either, both = self._gains(parents)
        found: Floats = self.predict(parents).T[parent]
        found += either[parent, in1, op1] + either[parent, in2, op2]
        alike = np.flatnonzero(op1 == op2)
        found[alike] -= both[parent[alike], in1[alike], in2[alike], op1[alike]]
        return found

    def _gains(self, parents: Codes) -> tuple[Floats, Floats]:
        """What a new block's side adds by its source and operation: (P, s, 8, E), s inputs and blocks.

        Also (P, s, s, 8, E): what the paths add that sides from two sources have in common, which takes
        equal operations.
        """
        count, sources, members = len(parents), CELL_INPUTS + parents.shape[1], len(self.intercepts)
        paths = paths_of(parents)
        worth = self.weights[SIDES:].reshape(STEMS, len(OPERATIONS), members)
        lacking = (~paths.present[..., None] * worth).reshape(count, STEMS, -1)
        common = (paths.at[:, :, None] & paths.at[:, None]).reshape(count, sources**2, STEMS)
        shape = (count, sources, sources, len(OPERATIONS), members)
        both = (common.astype(np.float64) @ lacking).reshape(shape)
        source, operation = np.indices((sources, len(OPERATIONS)))
        sides = self.weights[side_feature(source, operation)]
        own = range(sources)
        either: Floats = both[:, own, own] + sides
        return either, both


def ridge(known: Floats, values: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights (p,) and intercept of the regression of values (n,) on features (n, p).

    Minimises ``Σ (error)² + penalty · |w|²`` with w for features of mean 0 and variance 1, then gives w for
    the features as they are. One that is the same in all n has weight 0.
    """
    varying = np.flatnonzero(np.ptp(known, axis=0) > 0)
    weights, mean = np.zeros(known.shape[1]), float(values.mean())
    chosen = known[:, varying]
    centre, scale = chosen.mean(axis=0), chosen.std(axis=0)
    standard = torch.from_numpy((chosen - centre) / scale)
    normal = standard.T @ standard
    normal.diagonal().add_(penalty)
    right = standard.T @ torch.from_numpy(values - mean)
    solution = torch.cholesky_solve(right[:, None], torch.linalg.cholesky(normal)).squeeze(1)
    weights[varying] = solution.numpy() / scale
    return weights, mean - float(centre @ weights[varying])


def _on_grid(values: Floats) -> Floats:
    rounded: Floats = np.round(values / GRID) * GRID
    return rounded
