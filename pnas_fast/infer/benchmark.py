"""How fast a session is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pnas_fast.export.sessions import Session

WARM_UP = 3
"""Runs that are not counted."""

LEAST_RUNS, LEAST_SECONDS = 20, 3.0
"""Counted are at least so many runs, for at least so long."""

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one batch size.

    Attributes:
        batch: images a run.
        runs: how many were timed.
        images_per_second: over all of them.
        percentiles: seconds of a run, for each of `PERCENTILES`.
    """

    batch: int
    runs: int
    images_per_second: float
    percentiles: tuple[float, ...]


def time_session(session: Session, images: npt.NDArray[Any]) -> Timing:
    """Run the same batch again and again; copies to and from a GPU are part of it.

    Raises:
        ExportError: the network fails, or gives logits that are not finite.
    """
    for _ in range(WARM_UP):
        session.require_finite(session.run(images), "the images")
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or sum(seconds) < LEAST_SECONDS:
        started = time.perf_counter()
        session.run(images)
        seconds.append(time.perf_counter() - started)
    percentiles = tuple(map(float, np.percentile(seconds, PERCENTILES)))
    return Timing(len(images), len(seconds), len(images) * len(seconds) / sum(seconds), percentiles)
