"""Hypervolume: one number for how good a set of trade-offs is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pnas_fast.objectives.dominance import first_layers

Floats = npt.NDArray[np.float64]


def hypervolume(points: Floats, reference: Floats) -> float:
    """The volume of all that some point beats and that beats the reference, exactly.

    Everything is to be small. A point that is not better than the reference in every objective adds nothing.
    Two sets compare where the reference is the same: choose it beforehand, never from what was found.

    Args:
        points: finite (M, d); M may be 0.
        reference: (d,). Of d objectives the time grows as M to the power of d − 1.

    Raises:
        ValueError: shapes that differ, or a number that is not finite.
    """
    if points.ndim != 2 or reference.shape != points.shape[1:] or not np.isfinite(reference).all():
        raise ValueError(
            f"points have shape {points.shape} and the reference {reference.shape}, allowed are (M, d) and "
            "finite (d,)"
        )
    inside = points[(points < reference).all(axis=1)]
    return _volume(reference - inside) if len(inside) else 0.0


def _volume(gains: Floats) -> float:
    """What boxes from the origin to points (n, d), all numbers positive, cover together."""
    if gains.shape[1] == 1:
        return float(gains.max())
    # Slabs along the first axis: each is covered as deep as the points that reach it say.
    front, _ = first_layers(-gains, 1)
    ordered = gains[front]
    ordered = ordered[np.argsort(-ordered[:, 0], kind="stable")]
    depths = ordered[:, 0] - np.append(ordered[1:, 0], 0.0)
    if gains.shape[1] == 2:
        return float(depths @ np.maximum.accumulate(ordered[:, 1]))
    return sum(
        float(depth) * _volume(ordered[: index + 1, 1:]) for index, depth in enumerate(depths) if depth
    )
