"""A long training as trackers see it: every epoch, and what is left in the end."""

from __future__ import annotations

from dataclasses import asdict

from pnas_fast.runs.folder import CONFIG
from pnas_fast.runs.weights import BEST
from pnas_fast.tracking.messages import Point
from pnas_fast.tracking.trackers import Kept, Tracking
from pnas_fast.train.curves import CURVES
from pnas_fast.train.heldout import TEST
from pnas_fast.train.history import HISTORY, Epoch, best_accuracy
from pnas_fast.train.run import Stopped

KEPT = Kept((CONFIG, HISTORY, BEST, CURVES, TEST), stopped=Stopped)
"""Of a training."""


class TrackedTraining:
    """Makes points of epochs. A step is an epoch, counted from 1; values are the history's but for recalls.

    Args:
        tracking: is offered the points.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._best = -1.0

    def epoch(self, record: Epoch) -> None:
        """Offer the next epoch, the first ones being those of a training that is gone on with."""
        left_out = ("epoch", "recall")
        values = {
            name: value
            for name, value in asdict(record).items()
            if name not in left_out and value is not None
        }
        self._best = max(self._best, best_accuracy([record]))
        if self._best >= 0:
            values["best_accuracy"] = self._best
        self._tracking.offer(Point("epoch", record.epoch - 1, record.epoch, values))
        self._tracking.hear()
