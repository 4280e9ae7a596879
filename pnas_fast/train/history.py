"""What a training remembers of its epochs: a file with one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from pnas_fast.engine import Evaluation
from pnas_fast.engine.settings import MOST_EPOCHS
from pnas_fast.files import write_text
from pnas_fast.runs.disk import writing

HISTORY = "history.jsonl"


Share = Annotated[float, Meta(ge=0, le=1)]


class HistoryError(ValueError):
    """A history that cannot be read."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch, counted from 1.

    Attributes:
        epoch: its number.
        loss: the mean over its steps, the auxiliary classifier's share included.
        accuracy: on the validation images after it, in [0, 1]; None where they were trained on.
        average_accuracy: that of the averaged weights; None without them, or likewise.
        seconds: of training, without evaluation.
        images: trained on.
        balanced_accuracy: of the weights that are judged; None likewise, and where an earlier version
            trained.
        recall: of each class, where these were the best weights so far, else None; of a class without
            validation images None.
    """

    epoch: Annotated[int, Meta(ge=1, le=MOST_EPOCHS)]
    loss: float
    accuracy: Share | None
    average_accuracy: Share | None
    seconds: Annotated[float, Meta(ge=0)]
    images: Annotated[int, Meta(ge=1)]
    balanced_accuracy: Share | None = None
    recall: tuple[Share | None, ...] | None = None

    @property
    def judged(self) -> float | None:
        """The accuracy that decides which weights are the best; None where nothing does."""
        return self.accuracy if self.average_accuracy is None else self.average_accuracy


def judged_by(epoch: Epoch, weights: Evaluation, average: Evaluation | None, best: float) -> Epoch:
    """An epoch with what its weights, and their average, make of validation images.

    Args:
        epoch: that was not judged yet.
        weights: of them.
        average: of the averaged ones, if any, which then count.
        best: the best accuracy before it.
    """
    counts = weights if average is None else average
    return replace(
        epoch,
        accuracy=weights.accuracy,
        average_accuracy=None if average is None else average.accuracy,
        balanced_accuracy=counts.balanced_accuracy,
        recall=counts.recalls if counts.accuracy > best else None,
    )


def best_accuracy(epochs: Sequence[Epoch]) -> float:
    """The best of the accuracies that decide; -1 where there is none."""
    return max((epoch.judged for epoch in epochs if epoch.judged is not None), default=-1.0)


def write_history(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Write the history of a run: the file is whole at any moment.

    Raises:
        DiskError: it cannot be written.
    """
    with writing(folder / HISTORY):
        write_text(folder / HISTORY, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))


def read_history(folder: Path, *, judged: bool | None = None) -> list[Epoch]:
    """The history of a run, empty where it has none; a last line without its end is left out.

    Args:
        folder: of the run.
        judged: whether its epochs were judged by validation images; None where that is all the same.

    Raises:
        HistoryError: another line is not an epoch of such a run, or not the one after that of the line
            before.
    """
    path = folder / HISTORY
    if not path.exists():
        return []
    if not path.is_file():  # a pipe would be waited for
        raise HistoryError(f"{path}: is no file, expected the history of a training")
    *lines, _ = path.read_bytes().split(b"\n")
    epochs = list[Epoch]()
    for number, line in enumerate(lines, start=1):
        try:
            epoch = msgspec.json.decode(line, type=Epoch)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise HistoryError(f"{path}, line {number}: not an epoch ({error})") from error
        if judged is not None and (epoch.judged is not None) != judged:
            raise HistoryError(
                f"{path}, line {number}: accuracy is {epoch.accuracy}, allowed is "
                f"{'a number' if judged else 'none: validation images were trained on'}"
            )
        if epochs and epoch.epoch != epochs[-1].epoch + 1:
            raise HistoryError(f"{path}, line {number}: epoch {epoch.epoch} after epoch {epochs[-1].epoch}")
        epochs.append(epoch)
    return epochs
