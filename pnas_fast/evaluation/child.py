"""Train one child and say how good it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from pnas_fast.data import DataError, DataSet, TrainingBatches
from pnas_fast.engine.class_weights import class_weights
from pnas_fast.engine.evaluation import Evaluation, evaluating
from pnas_fast.engine.graph import replayed
from pnas_fast.engine.loop import TrainingLoop
from pnas_fast.engine.precision import DTYPES, resolve_precision
from pnas_fast.engine.settings import TrainingSettings
from pnas_fast.engine.stepper import Stepper
from pnas_fast.engine.streams import Ahead, Steps, Stream, current_stream, to_end
from pnas_fast.evaluation.reasons import TrialError, is_out_of_memory, logged_reason
from pnas_fast.kernels import resolve_backend
from pnas_fast.kernels.triton.planning import planned_for
from pnas_fast.network import ChildNetwork
from pnas_fast.running import RunningTime
from pnas_fast.space import Cell

EpochReport = Callable[[int], None]
"""Called with the images seen so far, after every epoch."""


@dataclass(slots=True)
class ChildResult:
    """What training a child gave.

    ``accuracy``, in [0, 1], and ``validation_loss``, the mean cross-entropy in nats, are on the validation
    images after the last epoch, of which ``validation`` has all, ``test`` on the test images where that was
    asked for; ``epoch_losses`` are mean training losses, weighted where classes are; ``seconds`` include
    ``evaluation_seconds``, but nothing of the test, and ``images_per_second`` counts training alone.
    ``memory`` is the most device memory that was reserved for it, in bytes; 0 on a CPU.
    """

    status: Literal["done", "failed"] = "failed"
    accuracy: float | None = None
    validation_loss: float | None = None
    validation: Evaluation | None = None
    test: Evaluation | None = None
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
        return self.error is not None and is_out_of_memory(self.error)

    @property
    def loss(self) -> float | None:
        """The last epoch's mean training loss; None for a failed child."""
        return self.epoch_losses[-1] if self.status == "done" else None


def build_child(
    cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, *, outputs: int | None = None
) -> ChildNetwork:
    """A cell's child for a data set, with seeded weights, on the data set's device.

    It has an output for each of the data set's classes, or as many as ``outputs`` says.
    """
    backend = resolve_backend(settings.backend, data.train_images.device.type)
    torch.manual_seed(seed)
    network = ChildNetwork(
        cell,
        settings.repeats,
        settings.filters,
        outputs or data.classes,
        data.image_shape,
        backend,
        settings.drop_path,
    )
    network.to(data.train_images.device)
    network.arrange()
    return network


def _generator(seed: int, device: torch.device) -> torch.Generator:
    """One in the state that the device's own has just after `build_child`, which drew weights on the CPU."""
    generator = torch.Generator(device)
    if device.type == "cpu":
        generator.set_state(torch.get_rng_state())
    else:
        generator.manual_seed(seed)
    return generator


def train_child(
    cell: Cell,
    settings: TrainingSettings,
    data: DataSet,
    seed: int,
    report: EpochReport = lambda _: None,
    *,
    tests: bool = False,
) -> tuple[ChildResult, ChildNetwork | None]:
    """Build a cell's child, train it and measure its validation accuracy.

    A child that diverges, runs out of memory, exceeds the time limit or raises gives a failed result
    with the reason. The limit is one of running time: a process that is stopped does not use it up. The
    result depends on the arguments alone, on one device and torch version.

    Args:
        cell: the cell to judge.
        settings: sizes and recipe; where ``auto``, backend and precision are the best on the data's device.
        data: the data set, on the device.
        seed: of the weights, the order of images, augmentation and drop-path.
        report: told about progress after each epoch.
        tests: whether it is measured on the test images as well, which the data set then has.

    Returns:
        The result, and the trained network unless it failed.

    Raises:
        OSError: a fault of the machine, say a cache of kernels on a full disk.
        DataError: a streamed image cannot be read, which is no cell's fault either.
    """
    return to_end(training_child(cell, settings, data, seed, report, tests=tests))


def training_child(
    cell: Cell,
    settings: TrainingSettings,
    data: DataSet,
    seed: int,
    report: EpochReport = lambda _: None,
    *,
    tests: bool = False,
) -> Steps[tuple[ChildResult, ChildNetwork | None]]:
    """`train_child` that stops after every step, so that others may be trained meanwhile."""
    training = ChildTraining(cell, settings, data, seed, report, tests=tests)
    while training.advance(1):
        yield training.waits
    return training.result, training.network


class ChildTraining:
    """The training of a child that is advanced step by step, as `train_child` does it to the end.

    One thread may advance several, in turns, each on a stream of its own, the same in all turns. Each has
    whatever its steps change: network, optimiser, batches, random numbers, and the recording or graph of its
    step. So its result is the same, to the bit, whatever is done between its steps. Its seconds and its time
    limit go on meanwhile. One that nobody refers to any more is given up: its memory is free, once its stream
    no longer uses it, and what reads its images ends.

    Args:
        cell: see `train_child`, as all others.
        settings: sizes and recipe.
        data: the data set.
        seed: of all that is random.
        report: told about progress after each epoch.
        tests: whether it is measured on the test images as well.

    Attributes:
        result: what training gave, when it has finished.
        network: the trained network; None before it has finished, and of a failed child.
        waits: whether it can go on only when its device is further.
    """

    def __init__(
        self,
        cell: Cell,
        settings: TrainingSettings,
        data: DataSet,
        seed: int,
        report: EpochReport = lambda _: None,
        *,
        tests: bool = False,
    ) -> None:
        self.result = ChildResult()
        self.network: ChildNetwork | None = None
        self.waits = False
        self._share = settings.share or 1
        self._started = time.monotonic()
        self._work = _train(self.result, self._started, cell, settings, data, seed, report, tests)

    def advance(self, steps: int) -> bool:
        """Do up to so many training steps; whether there is more to do.

        The first call builds the child. That after the last step measures it, which takes no step. On a card
        steps are given to the current stream, as long as no more than `AHEAD` wait there and no result is
        due: then it returns early, and ``waits``.

        Raises:
            OSError: a fault of the machine, say a cache of kernels on a full disk.
            DataError: a streamed image cannot be read.
        """
        try:
            with planned_for(self._share):
                for _ in range(steps):
                    self.waits = next(self._work)
                    if self.waits:
                        break
        except StopIteration as end:
            self.waits, self.network = False, end.value or self.network
            return False
        except (OSError, DataError):
            raise
        except Exception as error:  # whatever a child does, the search goes on without it
            self.waits, self.result.error = False, logged_reason(error)
            self.result.seconds = time.monotonic() - self._started
            return False
        return True


def _train(
    result: ChildResult,
    started: float,
    cell: Cell,
    settings: TrainingSettings,
    data: DataSet,
    seed: int,
    report: EpochReport,
    tests: bool,
) -> Steps[ChildNetwork]:
    """Do all of it, with a stop after each step; the trained network."""
    # No method: nothing here refers to the training, so this is closed with it and not by a later collection.
    stream = current_stream(data.train_images.device)
    try:
        return (yield from _train_on(stream, result, started, cell, settings, data, seed, report, tests))
    finally:
        # However it ends: what the stream still works with is not to be another child's memory.
        stream.finish()


def _train_on(
    stream: Stream,
    result: ChildResult,
    started: float,
    cell: Cell,
    settings: TrainingSettings,
    data: DataSet,
    seed: int,
    report: EpochReport,
    tests: bool,
) -> Steps[ChildNetwork]:
    running = RunningTime()
    settings = _resolved(settings, data)
    network = build_child(cell, settings, data, seed)
    network.drop.generator = _generator(seed, data.train_images.device)
    result.parameters, result.multiply_adds = network.parameters_count, network.multiply_adds
    yield from _fit(stream, network, settings, data, seed, running, result, report)
    trained = time.monotonic()
    dtype = DTYPES[settings.precision]
    found = yield from evaluating(network, data, dtype)
    if not math.isfinite(found.loss):
        raise TrialError(f"diverged: the validation loss is {found.loss}")
    result.validation, result.accuracy, result.validation_loss = found, found.accuracy, found.loss
    result.evaluation_seconds = time.monotonic() - trained
    result.seconds = time.monotonic() - started
    if tests:
        result.test = yield from evaluating(network, data.tested(), dtype)
    result.status = "done"
    return network


def _fit(
    stream: Stream,
    network: ChildNetwork,
    settings: TrainingSettings,
    data: DataSet,
    seed: int,
    running: RunningTime,
    result: ChildResult,
    report: EpochReport,
) -> Iterator[bool]:
    """Train it, with a stop after each step."""
    dtype, weights = DTYPES[settings.precision], class_weights(settings, data)
    with closing(TrainingBatches(data, settings.batch, seed, cutout=settings.cutout, dtype=dtype)) as batches:
        loop = TrainingLoop(network, Stepper(network, settings, weights=weights), batches, settings.epochs)
        yield from _fit_in(Ahead(stream), loop, batches, network, settings, running, result, report)


def _fit_in(
    ahead: Ahead,
    loop: TrainingLoop,
    batches: TrainingBatches,
    network: ChildNetwork,
    settings: TrainingSettings,
    running: RunningTime,
    result: ChildResult,
    report: EpochReport,
) -> Iterator[bool]:
    step = replayed(loop.step, batches.device, settings.backend, network.drop.generator)
    network.train()
    training_seconds = 0.0
    for epoch in range(settings.epochs):
        started = time.monotonic()
        loop.begin(epoch)
        for _ in range(len(batches)):
            yield from ahead.until_few()
            # A card is still at work on earlier steps: it may be over the limit by those.
            if running.seconds() > settings.time_limit:
                raise TrialError(f"exceeded the time limit of {settings.time_limit:g} s in epoch {epoch + 1}")
            loop.feed()
            step()
            ahead.count()
            yield False
        yield from ahead.until_done()
        loss = loop.loss()
        training_seconds += time.monotonic() - started
        result.images_seen += len(batches) * batches.images
        result.images_per_second = result.images_seen / training_seconds
        if not math.isfinite(loss):
            raise TrialError(f"diverged: loss is {loss} in epoch {epoch + 1}")
        result.epoch_losses.append(loss)
        report(result.images_seen)
    if not loop.is_finite():
        raise TrialError("diverged: a weight is not finite after the last step")


def _resolved(settings: TrainingSettings, data: DataSet) -> TrainingSettings:
    device = data.train_images.device.type
    backend = resolve_backend(settings.backend, device)
    precision = resolve_precision(settings.precision, device, backend, settings.optimizer)
    return replace(settings, backend=backend, precision=precision)
