"""What a training remembers of its epochs: a file with one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pnas_fast.files import write_text

HISTORY = "history.jsonl"


class HistoryError(ValueError):
    """A history that cannot be read."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch, counted from 1.

    Attributes:
        epoch: its number.
        loss: the mean over its steps, the auxiliary classifier's share included.
        accuracy: on the validation images after it, in [0, 1].
        average_accuracy: that of the averaged weights; None without them.
        seconds: of training, without evaluation.
        images: trained on.
    """

    epoch: int
    loss: float
    accuracy: float
    average_accuracy: float | None
    seconds: float
    images: int

    @property
    def judged(self) -> float:
        """The accuracy that decides which weights are the best."""
        return self.accuracy if self.average_accuracy is None else self.average_accuracy


def write_history(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Write the history of a run: the file is whole at any moment."""
    write_text(folder / HISTORY, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))


def read_history(folder: Path) -> list[Epoch]:
    """The history of a run, empty where it has none; a last line without its end is left out.

    Raises:
        HistoryError: another line is not an epoch.
    """
    path = folder / HISTORY
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    epochs = []
    for number, line in enumerate(lines, start=1):
        try:
            epochs.append(Epoch(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise HistoryError(f"{path}, line {number}: not an epoch ({error})") from error
    return epochs
