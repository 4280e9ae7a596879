"""Train one child and say how good it is."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from pnas_fast.data import DataSet, TrainingBatches
from pnas_fast.engine.evaluation import evaluate
from pnas_fast.engine.graph import replayed
from pnas_fast.engine.loop import TrainingLoop
from pnas_fast.engine.precision import DTYPES, resolve_precision
from pnas_fast.engine.settings import TrainingSettings
from pnas_fast.engine.stepper import Stepper
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell

OUT_OF_MEMORY = "out of memory"

EpochReport = Callable[[int], None]
"""Called with the images seen so far, after every epoch."""


@dataclass(slots=True)
class ChildResult:
    """What training a child gave.

    ``accuracy`` is on the validation images after the last epoch, in [0, 1]; ``epoch_losses`` are mean
    training losses; ``seconds`` include ``evaluation_seconds`` and ``images_per_second`` counts training
    alone. ``memory`` is the most device memory that was reserved for it, in bytes; 0 on a CPU.
    """

    status: Literal["done", "failed"] = "failed"
    accuracy: float | None = None
    epoch_losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    images_per_second: float = 0.0
    images_seen: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    memory: int = 0
    error: str | None = None

    @property
    def out_of_memory(self) -> bool:
        """Whether it failed because there was not enough memory."""
        return self.error is not None and self.error.startswith(OUT_OF_MEMORY)

    @property
    def loss(self) -> float | None:
        """The last epoch's mean training loss; None for a failed child."""
        return self.epoch_losses[-1] if self.status == "done" else None


class ChildError(Exception):
    """Training cannot go on; the message is the recorded reason."""


def build_child(cell: Cell, settings: TrainingSettings, data: DataSet, seed: int) -> ChildNetwork:
    """A cell's child for a data set, with seeded weights, on the data set's device."""
    torch.manual_seed(seed)
    network = ChildNetwork(
        cell,
        settings.repeats,
        settings.filters,
        data.classes,
        data.image_shape,
        settings.backend,
        settings.drop_path,
    )
    network.to(data.train_images.device)
    network.arrange()
    return network


def train_child(
    cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, report: EpochReport = lambda _: None
) -> tuple[ChildResult, ChildNetwork | None]:
    """Build a cell's child, train it and measure its validation accuracy.

    A child that diverges, runs out of memory, exceeds the time limit or raises gives a failed result
    with the reason. The result depends on the arguments alone, on one device and torch version.

    Args:
        cell: the cell to judge.
        settings: sizes and recipe; ``backend`` must be resolved, not ``auto``.
        data: the data set, on the device.
        seed: of the weights, the order of images, augmentation and drop-path.
        report: told about progress after each epoch.

    Returns:
        The result, and the trained network unless it failed.
    """
    result = ChildResult()
    started = time.monotonic()
    network = None
    try:
        settings = replace(settings, precision=_precision(settings, data))
        network = build_child(cell, settings, data, seed)
        result.parameters, result.multiply_adds = network.parameters_count, network.multiply_adds
        _fit(network, settings, data, seed, started + settings.time_limit, result, report)
        trained = time.monotonic()
        result.accuracy = evaluate(network, data, DTYPES[settings.precision])
        result.evaluation_seconds = time.monotonic() - trained
        result.status = "done"
    except Exception as error:  # whatever a child does, the search goes on without it
        result.error = _reason(error)
    result.seconds = time.monotonic() - started
    return result, network if result.status == "done" else None


def _fit(
    network: ChildNetwork,
    settings: TrainingSettings,
    data: DataSet,
    seed: int,
    deadline: float,
    result: ChildResult,
    report: EpochReport,
) -> None:
    batches = TrainingBatches(data, settings.batch, seed, dtype=DTYPES[settings.precision])
    loop = TrainingLoop(network, Stepper(network, settings), batches, settings.epochs)
    step = replayed(loop.step, batches.device, settings.backend)
    network.train()
    training_seconds = 0.0
    for epoch in range(settings.epochs):
        started = time.monotonic()
        loop.begin(epoch)
        for _ in range(len(batches)):
            # A card is still at work on earlier steps: it may be over the limit by an epoch at the most.
            if time.monotonic() > deadline:
                raise ChildError(f"exceeded the time limit of {settings.time_limit:g} s in epoch {epoch + 1}")
            step()
        loss = loop.loss()
        training_seconds += time.monotonic() - started
        result.images_seen += len(batches) * batches.images
        result.images_per_second = result.images_seen / training_seconds
        if not math.isfinite(loss):
            raise ChildError(f"diverged: loss is {loss} in epoch {epoch + 1}")
        result.epoch_losses.append(loss)
        report(result.images_seen)
    if not loop.is_finite():
        raise ChildError("diverged: a weight is not finite after the last step")


def _precision(settings: TrainingSettings, data: DataSet) -> str:
    device = data.train_images.device.type
    return resolve_precision(settings.precision, device, settings.backend, settings.optimizer)


def _reason(error: Exception) -> str:
    """One line for the trial store; anything unforeseen leaves its traceback in the log as well."""
    if isinstance(error, ChildError):
        return str(error)
    first_line = str(error).strip().split("\n", 1)[0]
    # A CPU allocation that fails is a plain RuntimeError.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in first_line:
        return f"{OUT_OF_MEMORY}: {first_line}"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {first_line}"
