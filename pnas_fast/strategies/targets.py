"""What a surrogate learns of finished trials: their accuracies, or targets made from validation losses."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from pnas_fast.protocols import StrategyError, Trial
from pnas_fast.surrogate.checks import Floats

LEARN = ("accuracy", "loss")

STRETCHED = (0.1, 0.9)
"""Where the worst and the best of what is learned go; in between, a surrogate's outputs come with ease."""

CLIPPED = 0.05
"""The part of trials, the worst, whose losses do not count in full: a loss has no upper end."""


def learned_value(trial: Trial, learn: str) -> float:
    """A finished trial's accuracy, or its validation loss.

    Raises:
        StrategyError: it has no validation loss and that is to be learned.
    """
    if learn == "accuracy":
        return trial.accuracy
    loss = trial.value("validation_loss")
    if not isfinite(loss):
        raise StrategyError(
            f"child {trial.number} has validation_loss {loss}, which --learn loss needs to be a number; "
            "allowed without one is --learn accuracy"
        )
    return loss


def targets(values: Sequence[Floats], learn: str) -> list[Floats]:
    """What to fit a surrogate to, in [0, 1], from groups (n,) of `learned_value`.

    Accuracies as they are. Losses of all groups together are cut off at their 95th percentile and mapped by
    one falling line to `STRETCHED`; equal ones all go to its middle.
    """
    if learn == "accuracy":
        return list(values)
    losses = np.concatenate(values)
    best, worst = losses.min(), np.quantile(losses, 1 - CLIPPED)
    low, high = STRETCHED
    if best == worst:
        return [np.full(len(group), (low + high) / 2) for group in values]
    return [low + (high - low) * ((worst - np.minimum(group, worst)) / (worst - best)) for group in values]
