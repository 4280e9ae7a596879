"""The evaluator of few-shot learning: how well a cell's child learns classes that it has not seen.

Progressive search with it is Auto-Meta (Kim et al. 2018).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pnas_fast.data import DataSet
from pnas_fast.data.few_shot import Steps, Task, Tasks, class_parts
from pnas_fast.engine import DTYPES, TrainingSettings, replayed, resolve_precision
from pnas_fast.engine.adapted import Judged, Questions, judge
from pnas_fast.engine.few_shot import OPTIONS, FewShotSettings
from pnas_fast.engine.reptile import Adam, Adaptation, Reptile
from pnas_fast.evaluation.child import build_child
from pnas_fast.evaluation.reasons import TrialError
from pnas_fast.evaluation.train import plain_settings
from pnas_fast.kernels import resolve_backend
from pnas_fast.protocols import Context, Measurement, Proposal, Spec
from pnas_fast.running import RunningTime
from pnas_fast.space import Cell
from pnas_fast.space.operations import effort

NAME = f"{__name__}:FewShot"

TRAINED, VALIDATED, TESTED = range(3)
"""Streams of random numbers."""

OF_CHILDREN = ("repeats", "filters")
"""Fields of `TrainingSettings` that change a measurement, beside those of the data."""

REPORTS = 20
"""How often a training tells how far it is, and looks whether it has diverged."""


def few_shot_spec(settings: TrainingSettings, few_shot: FewShotSettings, data: str, seed: int) -> Spec:
    """`FewShot` with settings, which may be a configuration that has more fields, and the data's identity.

    ``seed`` is that of the tasks by which cells are judged.
    """
    options = {name: getattr(few_shot, name) for name in OPTIONS}
    settings_of_children = plain_settings(settings)
    return Spec(NAME, {"settings": settings_of_children, "few_shot": options, "data": data, "seed": seed})


class FewShot:
    """Trains a cell's child by Reptile for a proposal's budget of meta-iterations, and judges it on tasks.

    Its accuracy is the mean over a fixed set of tasks of validation classes, of which training sees nothing;
    a final training is also judged on as many of test classes. No weights are kept.

    Args:
        settings: the fields of `TrainingSettings`, resolved, of which those of the child's size and those of
            the machine are read.
        few_shot: the fields of `FewShotSettings`; ``meta_iterations`` gives way to the budget.
        data: the identity of the data set.
        seed: of the tasks that judge; 0 or more.

    Raises:
        ConfigError: a setting outside its limits.
    """

    def __init__(
        self, settings: Mapping[str, Any], few_shot: Mapping[str, Any], data: str, seed: int
    ) -> None:
        self._settings = TrainingSettings(**settings)
        self._few_shot = FewShotSettings(**few_shot)
        self._data, self._seed = data, seed

    @property
    def identity(self) -> str:
        """See `pnas_fast.protocols.Evaluator`."""
        told = {name: getattr(self._settings, name) for name in OF_CHILDREN}
        options = {name: getattr(self._few_shot, name) for name in OPTIONS if name != "meta_iterations"}
        text = json.dumps(["reptile", told, options, self._data, self._seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def effort(self, cell: Cell) -> float:
        """See `pnas_fast.protocols.Evaluator`."""
        return effort(cell)

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        """See `pnas_fast.protocols.Evaluator`."""
        cuda = context.data.train_images.is_cuda
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        learning = Learning(proposal.cell.canonical(), self._settings, self._few_shot, context, self._seed)
        values = learning.values(proposal.budget, tests=proposal.is_final)
        memory = {"memory": torch.cuda.max_memory_reserved()} if cuda else {}
        return Measurement("done", values | memory)


class Learning:
    """A child, and the tasks that it learns from and is judged by.

    Args:
        cell: canonical.
        settings: of the child's size, and of the machine.
        few_shot: of everything else.
        context: with the child's seed and the data.
        seed: of the tasks that judge.
    """

    def __init__(
        self, cell: Cell, settings: TrainingSettings, few_shot: FewShotSettings, context: Context, seed: int
    ) -> None:
        self._began, self._running = time.monotonic(), RunningTime()
        data: DataSet = context.data
        backend, dtype = _carried_out(settings, data)
        self._few_shot, self._context, self._limit = few_shot, context, settings.time_limit
        sized = replace(settings, backend=backend, drop_path=0.0)
        self._network = build_child(cell, sized, data, context.seed, outputs=few_shot.few_shot_ways)
        self._optimizer = Adam(list(self._network.parameters()), few_shot.inner_rate)
        parts, device = class_parts(data.classes), data.train_images.device
        self._replay = partial(replayed, device=device, backend=backend)
        f = few_shot
        training = Steps(f.inner_iterations, f.inner_batch, f.meta_shots)
        judging = Steps(f.adaptation_iterations, f.inner_batch, f.few_shot_shots)
        asked = f.few_shot_shots + f.few_shot_queries
        self._trained = Tasks(data, parts.train, f.few_shot_ways, f.meta_shots, training, context.seed, dtype)
        self._validated, self._tested = (
            Tasks(data, part, f.few_shot_ways, asked, judging, seed, dtype)
            for part in (parts.validation, parts.test)
        )

    def values(self, iterations: int, *, tests: bool = False) -> dict[str, float]:
        """Train for so many meta-iterations, and measure.

        Raises:
            TrialError: it diverged, or took too long.
        """
        values: dict[str, float] = {
            "parameters": self._network.parameters_count,
            "multiply_adds": self._network.multiply_adds,
        }
        values |= self._train(iterations)
        trained = time.monotonic()
        found = self.judged()
        values |= {"accuracy": found.accuracy, "accuracy_error": found.error, "validation_loss": found.loss}
        ended = time.monotonic()
        values |= {"evaluation_seconds": ended - trained, "seconds": ended - self._began}
        if tests:
            found = self.judged(tests=True)
            values |= {
                "test_accuracy": found.accuracy, "test_accuracy_error": found.error, "test_loss": found.loss,
            }  # fmt: skip
        return values

    def _train(self, iterations: int) -> dict[str, float]:
        f, started = self._few_shot, time.monotonic()
        first = self._trained.draw(TRAINED, 0, 0)
        adaptation = Adaptation(self._network, self._optimizer, first, self._replay)
        reptile = Reptile(self._network, adaptation, iterations)
        every, told, loss = max(1, iterations // REPORTS), 0, math.nan
        for iteration in range(iterations):
            self._check_time(f"meta-iteration {iteration + 1}")
            tasks = (self._trained.draw(TRAINED, iteration, number) for number in range(f.meta_batch))
            reptile.step(iteration, list(tasks))
            if (iteration + 1) % every == 0 or iteration + 1 == iterations:
                steps = (iteration + 1 - told) * f.meta_batch * f.inner_iterations
                loss, told = float(adaptation.losses) / steps, iteration + 1
                adaptation.losses.zero_()
                if not math.isfinite(loss):
                    raise TrialError(f"diverged: loss is {loss} in meta-iteration {iteration + 1}")
                self._context.report(told * f.meta_batch * first.places.numel())
        images = iterations * f.meta_batch * first.places.numel()
        seconds = time.monotonic() - started
        return {"loss": loss, "images_seen": images, "images_per_second": images / seconds}

    def judged(self, *, tests: bool = False) -> Judged:
        """How good the child is by now at tasks of validation classes, or of test classes.

        Raises:
            TrialError: as `values`.
        """
        f = self._few_shot
        tasks, stream = (self._tested, TESTED) if tests else (self._validated, VALIDATED)
        first = tasks.draw(stream, 0)
        adaptation = Adaptation(self._network, self._optimizer, first, self._replay)
        questions = Questions(
            self._network, adaptation, f.few_shot_shots, f.few_shot_transductive, self._replay
        )

        def drawn() -> Iterator[Task]:
            for number in range(f.few_shot_tasks):
                self._check_time(f"task {number + 1}")
                yield tasks.draw(stream, number)

        found = judge(self._network, self._optimizer, adaptation, questions, drawn())
        if not math.isfinite(found.loss):
            raise TrialError(f"diverged: the loss on tasks is {found.loss}")
        return found

    def _check_time(self, where: str) -> None:
        if self._running.seconds() > self._limit:
            raise TrialError(f"exceeded the time limit of {self._limit:g} s in {where}")


def _carried_out(settings: TrainingSettings, data: DataSet) -> tuple[str, torch.dtype]:
    """The backend, and the type of activations: fp32 in place of fp16, whose loss nobody scales here."""
    device = data.train_images.device.type
    backend = resolve_backend(settings.backend, device)
    precision = resolve_precision(settings.precision, device, backend, settings.optimizer)
    return backend, DTYPES["fp32" if precision == "fp16" else precision]
