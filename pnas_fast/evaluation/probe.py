"""Trying a child for a few seconds: how fast it trains, beside whatever else runs on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from pnas_fast.data import DataSet
from pnas_fast.engine import TrainingSettings
from pnas_fast.engine.evaluation import EVALUATION_BATCH
from pnas_fast.engine.streams import Steps, to_end
from pnas_fast.evaluation.child import ChildResult, training_child
from pnas_fast.evaluation.train import as_measurement, plain_settings, training_identity
from pnas_fast.protocols import Context, Measurement, Measuring, Proposal, Spec
from pnas_fast.space import Cell
from pnas_fast.space.operations import effort

NAME = f"{__name__}:Probe"

CPU_BATCH = 32
"""On a CPU, where it hardly matters to the rate: a paper's step of 128 images takes seconds there."""

EPOCHS = 4
"""Parts of a training's steps, of which the first does not count: it has what is done once, say a capture."""

GROWTH = 16
"""Most times as many steps as in the training before."""


def probe_spec(settings: TrainingSettings, seconds: float) -> Spec:
    """`Probe` with settings, which may be a configuration that has more fields."""
    return Spec(NAME, {"settings": plain_settings(settings), "seconds": seconds})


class Probe:
    """Trains children for about so many seconds each: an evaluator of their speed. Nothing is written.

    Args:
        settings: the fields of `TrainingSettings`, resolved.
        seconds: see `probe_child`.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        self._settings = TrainingSettings(**settings)
        self._seconds = seconds

    @property
    def identity(self) -> str:
        """See `pnas_fast.protocols.Evaluator`; what is tried is remembered nowhere."""
        return training_identity("probe", self._settings, "", str(self._seconds))

    def effort(self, cell: Cell) -> float:
        """See `pnas_fast.protocols.Evaluator`."""
        return effort(cell)

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        """Try a child; budgets do not count."""
        return to_end(self.measuring(proposal, context))

    def measuring(self, proposal: Proposal, context: Context) -> Measuring:
        """`measure`, with a stop after every training step."""
        if context.data.train_images.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        result = yield from _probing(proposal.cell, self._settings, context.data, context.seed, self._seconds)
        if context.data.train_images.is_cuda:
            result.memory = torch.cuda.max_memory_reserved()
        return as_measurement(result)


def as_result(measurement: Measurement) -> ChildResult:
    """What `Probe` measured, as training a child gives it."""
    values = measurement.values
    return ChildResult(
        status=measurement.status,
        accuracy=values.get("accuracy"),
        validation_loss=values.get("validation_loss"),
        epoch_losses=list(measurement.curves.get("loss", ())),
        seconds=values.get("seconds", 0.0),
        evaluation_seconds=values.get("evaluation_seconds", 0.0),
        images_per_second=values.get("images_per_second", 0.0),
        images_seen=int(values.get("images_seen", 0)),
        parameters=int(values.get("parameters", 0)),
        multiply_adds=int(values.get("multiply_adds", 0)),
        memory=int(values.get("memory", 0)),
        error=measurement.error,
    )


def probe_child(
    cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, seconds: float
) -> ChildResult:
    """Train a cell's child for about so many seconds, after a step that warms caches.

    Whole children are trained again and again, each for more steps of the same data, until one has
    taken long enough; the last one counts.

    Returns:
        Its result, or that of the first which failed. ``evaluation_seconds`` is what evaluating all
        validation images would take, and is in ``seconds``.
    """
    return to_end(_probing(cell, settings, data, seed, seconds))


def _probing(
    cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, seconds: float
) -> Steps[ChildResult]:
    gpu = data.train_images.is_cuda
    if not gpu:
        settings = replace(settings, batch=min(settings.batch, CPU_BATCH))
    few = _cut_validation(data, EVALUATION_BATCH if gpu else settings.batch)
    result = yield from _training(cell, settings, few, seed, 1)
    steps = 1
    while result.status == "done":
        result = yield from _training(cell, settings, few, seed, steps)
        spent = result.images_seen / result.images_per_second if result.status == "done" else seconds
        if spent >= seconds / 2:
            break
        steps *= min(max(math.ceil(seconds / spent), 2), GROWTH)
    more = result.evaluation_seconds * (len(data.validation_labels) / len(few.validation_labels) - 1)
    return replace(result, evaluation_seconds=result.evaluation_seconds + more, seconds=result.seconds + more)


def _training(
    cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, steps: int
) -> Steps[ChildResult]:
    images, times = len(data.train_labels), list[tuple[int, float]]()
    an_epoch = max(1, min(math.ceil(steps / EPOCHS), images // settings.batch))
    epochs = math.ceil(steps / an_epoch)
    part = data.subset(min(images, an_epoch * settings.batch))
    settings = replace(settings, epochs=epochs)

    def report(seen: int) -> None:
        times.append((seen, time.monotonic()))

    result, _ = yield from training_child(cell, settings, part, seed, report)
    if result.status == "done" and len(times) > 1:
        (before, began), (after, ended) = times[0], times[-1]
        result.images_per_second = (after - before) / max(ended - began, 1e-9)
    return result


def _cut_validation(data: DataSet, images: int) -> DataSet:
    return replace(
        data,
        validation_images=data.validation_images[:images],
        validation_labels=data.validation_labels[:images],
    )
