"""Trying a child for a few seconds: how fast it trains, beside whatever else runs on the device."""

from __future__ import annotations

import math
from dataclasses import replace

from pnas_fast.data import DataSet
from pnas_fast.engine import TrainingSettings
from pnas_fast.engine.evaluation import EVALUATION_BATCH
from pnas_fast.evaluation import ChildResult, train_child
from pnas_fast.space import Cell

CPU_BATCH = 32
"""On a CPU, where it hardly matters to the rate: a paper's step of 128 images takes seconds there."""

GROWTH = 16
"""Most times as many steps as in the training before."""


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
    gpu = data.train_images.is_cuda
    if not gpu:
        settings = replace(settings, batch=min(settings.batch, CPU_BATCH))
    few = _cut_validation(data, EVALUATION_BATCH if gpu else settings.batch)
    result = _train_steps(cell, settings, few, seed, 1)
    steps = 1
    while result.status == "done":
        result = _train_steps(cell, settings, few, seed, steps)
        spent = result.images_seen / result.images_per_second if result.status == "done" else seconds
        if spent >= seconds / 2:
            break
        steps *= min(max(math.ceil(seconds / spent), 2), GROWTH)
    more = result.evaluation_seconds * (len(data.validation_labels) / len(few.validation_labels) - 1)
    return replace(result, evaluation_seconds=result.evaluation_seconds + more, seconds=result.seconds + more)


def _train_steps(cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, steps: int) -> ChildResult:
    images = len(data.train_labels)
    an_epoch = max(1, min(steps, images // settings.batch))
    epochs = math.ceil(steps / an_epoch)
    part = data.subset(min(images, an_epoch * settings.batch))
    return train_child(cell, replace(settings, epochs=epochs), part, seed)[0]


def _cut_validation(data: DataSet, images: int) -> DataSet:
    return replace(
        data,
        validation_images=data.validation_images[:images],
        validation_labels=data.validation_labels[:images],
    )
