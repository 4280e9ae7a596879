"""How good a finished training's network is on test images: measured once, when nothing is left to choose."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from pnas_fast.data import DataSet
from pnas_fast.engine import DTYPES, evaluate
from pnas_fast.engine.evaluation import balanced
from pnas_fast.files import write_text
from pnas_fast.report.text import count, percent
from pnas_fast.runs.disk import writing
from pnas_fast.runs.weights import BEST, load_child
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.history import HistoryError, Share

TEST = "test.json"

NORMAL_95 = 1.959963984540054
"""95 % of a normal distribution lie within so many standard deviations of its mean."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a network made of test images.

    Attributes:
        correct: so many were classified rightly.
        images: of so many.
        loss: their mean cross-entropy in nats; None where it is no finite number.
        recall: the share of right answers among the images of each class, in order; None of a class without
            any, and None where an earlier version measured.
    """

    correct: Annotated[int, Meta(ge=0)]
    images: Annotated[int, Meta(ge=1)]
    loss: float | None
    recall: tuple[Share | None, ...] | None = None

    def __post_init__(self) -> None:
        if self.correct > self.images:
            raise ValueError(f"{self.correct} of {self.images} images are right")

    @property
    def accuracy(self) -> float:
        """The share of right answers, in [0, 1]."""
        return self.correct / self.images

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean of the recalls; None where they are not known."""
        return None if self.recall is None else balanced(self.recall)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy: what so few images leave open."""
        n, z = self.images, NORMAL_95
        centre = (self.accuracy + z * z / (2 * n)) / (1 + z * z / n)
        variance = self.accuracy * (1 - self.accuracy) / n + z * z / (4 * n * n)
        half = z * math.sqrt(variance) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        other = self.balanced_accuracy
        evenly = "" if other is None else f", balanced accuracy {percent(other, 2)}"
        return (
            f"test error {percent(1 - self.accuracy, 2)} on {count(self.images)} test images "
            f"(95 %: {100 * (1 - high):.2f} to {100 * (1 - low):.2f} %), "
            f"test accuracy {percent(self.accuracy, 2)}{evenly}{loss}"
        )


def tested_once(folder: Path, data: DataSet, config: TrainConfig) -> HeldOut | None:
    """What the weights that a finished training has kept make of the test images.

    The first call with test images measures and writes it down, all others read it.

    Args:
        folder: of the run.
        data: as it was trained on, on the training's device.
        config: resolved.

    Returns:
        None where the data have no test images, and nobody has measured before.

    Raises:
        HistoryError: what was written down is something else now.
        WeightsError: the weights cannot be used.
        DiskError: the result cannot be written.
    """
    known = read_tested(folder)
    if known is not None or data.test_images is None:
        return known
    network = load_child(folder / BEST, config.backend).to(config.device)
    network.arrange()
    found = evaluate(network, data.tested(), DTYPES[config.precision])
    loss = found.loss if math.isfinite(found.loss) else None
    tested = HeldOut(found.correct, found.images, loss, found.recalls)
    values = {
        "accuracy": tested.accuracy,
        "interval": tested.interval,
        "loss": tested.loss,
        "correct": tested.correct,
        "images": tested.images,
        "balanced_accuracy": tested.balanced_accuracy,
        "recall": tested.recall,
        "classes": data.class_names or None,
    }
    with writing(folder / TEST):
        write_text(folder / TEST, json.dumps(values) + "\n")
    return tested


def read_tested(folder: Path) -> HeldOut | None:
    """What a training has written down of test images; None before it did.

    Raises:
        HistoryError: the file is something else.
    """
    path = folder / TEST
    if not path.exists():
        return None
    if not path.is_file():  # a pipe would be waited for
        raise HistoryError(f"{path}: is no file, expected the test result of a training")
    try:
        return msgspec.json.decode(path.read_bytes(), type=HeldOut)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HistoryError(
            f"{path}: not the test result of a training ({error}); put it back, or remove it to measure again"
        ) from error
