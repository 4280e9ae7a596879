"""The evaluator of an ordinary search: train a child, and measure it on the validation images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from pnas_fast.engine import TrainingSettings
from pnas_fast.engine.evaluation import Evaluation
from pnas_fast.engine.settings import HOW, LATER
from pnas_fast.engine.streams import to_end
from pnas_fast.evaluation.child import ChildResult, training_child
from pnas_fast.evaluation.profiling import trace_file, write_trace
from pnas_fast.protocols import Context, Measurement, Measuring, Proposal, Spec
from pnas_fast.runs.weights import child_file, save_child
from pnas_fast.space import Cell
from pnas_fast.space.operations import effort

NAME = f"{__name__}:Train"

NO_IDENTITY = frozenset({"epochs", *HOW})
"""A child's budget, and how it is carried out, which changes last bits at the most."""


def train_spec(settings: TrainingSettings, data: str, tests: bool = False) -> Spec:
    """`Train` with settings, which may be a configuration that has more fields, and the data's identity."""
    return Spec(NAME, {"settings": plain_settings(settings), "data": data, "tests": tests})


def plain_settings(settings: TrainingSettings) -> dict[str, Any]:
    """The fields of `TrainingSettings` alone, as JSON values."""
    return {item.name: getattr(settings, item.name) for item in fields(TrainingSettings)}


class Train:
    """Trains a cell's child for a proposal's budget of epochs and leaves its weights in the run's folder.

    Args:
        settings: the fields of `TrainingSettings`, resolved; ``epochs`` gives way to the budget.
        data: the identity of the data set.
        tests: whether a child is measured on the test images as well, as ``test_accuracy``,
            ``test_balanced_accuracy`` and ``test_loss``; that takes no part in its ``seconds``. Final
            trainings are where there are any, and have the recall of each class besides (`recall_name`).

    Raises:
        ConfigError: a setting outside its limits.
    """

    def __init__(self, settings: Mapping[str, Any], data: str, tests: bool = False) -> None:
        self._settings = TrainingSettings(**settings)
        self._data, self._tests = data, tests

    @property
    def identity(self) -> str:
        """See `pnas_fast.protocols.Evaluator`."""
        return training_identity("train", self._settings, self._data, "tests" if self._tests else "")

    def effort(self, cell: Cell) -> float:
        """See `pnas_fast.protocols.Evaluator`."""
        return effort(cell)

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        """Train the child of the canonical cell, whose order of blocks is that of its weights.

        Raises:
            OSError: weights or trace cannot be written.
        """
        return to_end(self.measuring(proposal, context))

    def measuring(self, proposal: Proposal, context: Context) -> Measuring:
        """`measure`, with a stop after every training step.

        On a card ``memory`` is the most that the process had reserved since a child of it began.
        """
        cell, data = proposal.cell.canonical(), context.data
        settings = replace(self._settings, epochs=proposal.budget)
        if context.traced:
            write_trace(cell, settings, data, context.seed, trace_file(context.folder, context.number))
        if data.train_images.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        tests = self._tests or (proposal.is_final and data.test_images is not None)
        result, network = yield from training_child(
            cell, settings, data, context.seed, context.report, tests=tests
        )
        if data.train_images.is_cuda:
            result.memory = torch.cuda.max_memory_reserved()
        if network is not None:
            path = child_file(context.folder, context.number)
            try:
                save_child(network, data, path)
            except OSError as error:  # that of a write does not say of which file
                raise OSError(error.errno, error.strerror, error.filename or str(path)) from error
        measured = as_measurement(result)
        more = {"validation_images": float(len(data.validation_labels))} if measured.done else {}
        if proposal.is_final:
            more |= _recalls("", result.validation) | _recalls("test_", result.test)
        return replace(measured, values={**measured.values, **more})


def recall_name(part: str, number: int) -> str:
    """``recall_3``, ``test_recall_3``: the name of a class's recall; ``part`` is empty or ``test_``."""
    return f"{part}recall_{number}"


def _recalls(part: str, found: Evaluation | None) -> dict[str, float]:
    recalls = () if found is None else found.recalls
    return {recall_name(part, n): recall for n, recall in enumerate(recalls) if recall is not None}


def as_measurement(result: ChildResult) -> Measurement:
    """What training a child gave, by the names that measurements have; what is not known is left out."""
    values: dict[str, float | None] = {
        "accuracy": result.accuracy,
        "balanced_accuracy": result.validation.balanced_accuracy if result.validation else None,
        "validation_loss": result.validation_loss,
        "test_accuracy": result.test.accuracy if result.test else None,
        "test_balanced_accuracy": result.test.balanced_accuracy if result.test else None,
        "test_loss": result.test.loss if result.test else None,
        "test_images": result.test.images if result.test else None,
        "loss": result.loss,
        "seconds": result.seconds,
        "evaluation_seconds": result.evaluation_seconds,
        "images_per_second": result.images_per_second,
        "images_seen": result.images_seen,
        "parameters": result.parameters,
        "multiply_adds": result.multiply_adds,
        "memory": result.memory or None,
    }
    known = {name: value for name, value in values.items() if value is not None}
    curves = {"loss": tuple(result.epoch_losses)} if result.epoch_losses else {}
    return Measurement(result.status, known, result.error, curves)


def training_identity(kind: str, settings: TrainingSettings, data: str, more: str = "") -> str:
    """Digest of all settings that change a measurement, of the data, and of whatever else does."""
    told = {
        item.name: value
        for item in fields(TrainingSettings)
        if item.name not in NO_IDENTITY
        # What measurements had no name for when they were made is in none of theirs.
        and ((value := getattr(settings, item.name)) != item.default or item.name not in LATER)
    }
    text = json.dumps([kind, told, data, more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
