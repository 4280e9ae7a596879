"""A long training from what its folder holds to its end."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pnas_fast.data import DataSet
from pnas_fast.runs.weights import BEST, save_child
from pnas_fast.train.checkpoint import (
    CheckpointError,
    Place,
    discard_unusable,
    latest_checkpoint,
    save_checkpoint,
)
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.curves import write_curves
from pnas_fast.train.display import Display
from pnas_fast.train.group import Group
from pnas_fast.train.history import Epoch, read_history, write_history
from pnas_fast.train.training import LongTraining

LOOK_SECONDS = 1.0
"""So often is the loss of an epoch in progress read, which waits for the device."""

DRAW_SECONDS = 60.0
"""So often are the curves drawn anew."""


class TrainError(Exception):
    """Training cannot go on; the message says why."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """Training was asked to stop, and has left a checkpoint."""


@dataclass(slots=True)
class Stop:
    """Set by whoever wants a training to stop after the step it is at."""

    asked: bool = False


class Run:
    """One training and its folder.

    Args:
        training: at its beginning.
        config: its own.
        folder: opened by this process if it leads its group.
        data: on this process's device.
        group: the processes that train together; the first one alone writes.
        display: is told how far it is.
        stop: is looked at after every step.

    Raises:
        CheckpointError: checkpoints exist, and none can be used.
        HistoryError: the folder's history is damaged.
    """

    def __init__(
        self,
        training: LongTraining,
        config: TrainConfig,
        folder: Path,
        data: DataSet,
        group: Group,
        display: Display,
        stop: Stop,
    ) -> None:
        self._training, self._config, self._folder, self._data = training, config, folder, data
        self._group, self._display, self._stop = group, display, stop
        self._place, self._history = Place(), list[Epoch]()
        self._go_on()
        self._saved = self._looked = self._drawn = time.monotonic()

    def train(self) -> list[Epoch]:
        """Train to the last epoch; the history.

        Raises:
            Stopped: as it was asked to.
            TrainError: training diverged.
        """
        for epoch in range(self._place.epoch, self._config.epochs):
            self._train_epoch(epoch)
            self._finish_epoch(epoch)
        self._draw()
        return self._history

    def _go_on(self) -> None:
        checkpoint = latest_checkpoint(self._folder, self._display.note)
        if checkpoint is not None:
            self._training.restore(checkpoint)
            self._place = place = checkpoint.place
            self._history = [record for record in read_history(self._folder) if record.epoch <= place.epoch]
        # Nobody writes before everybody has read, and what they read must be the same.
        if not self._group.agree(self._place.epoch * self._training.steps + self._place.index):
            raise CheckpointError(f"{self._folder}: processes find different checkpoints there")
        if self._group.leads:
            discard_unusable(self._folder, self._place)

    def _train_epoch(self, epoch: int) -> None:
        training = self._training
        started = time.monotonic() - self._place.seconds
        while self._place.index < training.steps:
            training.step(epoch, self._place.index)
            now = time.monotonic()
            self._place = replace(self._place, index=self._place.index + 1, seconds=now - started)
            self._show(now)
            if self._group.any(self._stop.asked):
                self._save()
                self._draw()
                raise Stopped
            if now - self._saved > 60 * self._config.checkpoint_minutes:
                self._save()

    def _finish_epoch(self, epoch: int) -> None:
        training, place = self._training, self._place
        loss = training.epoch_loss()
        if not (math.isfinite(loss) and training.is_finite()):
            raise TrainError(f"diverged: loss is {loss} in epoch {epoch + 1}; try a lower --learning-rate")
        images = training.images
        record = Epoch(epoch + 1, loss, *training.evaluate(), place.seconds, images)
        self._history.append(record)
        # Killed before the checkpoint below, the epoch is trained again, and these are written again.
        if self._group.leads:
            if record.judged > place.best:
                self._keep_best()
            write_history(self._folder, self._history)
        self._place = Place(epoch + 1, 0, max(place.best, record.judged))
        self._save()
        self._display.epoch(record, self._place.best)
        if time.monotonic() - self._drawn > DRAW_SECONDS:
            self._draw()

    def _show(self, now: float) -> None:
        place, loss = self._place, None
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            loss = self._training.loss_so_far(place.index)
        self._display.step(place.epoch, place.index, loss)

    def _keep_best(self) -> None:
        save_child(self._training.judged, self._data, self._folder / BEST)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._group.leads:
            write_curves(self._folder, self._history)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._group.leads:
            save_checkpoint(self._folder, self._place, self._training.tensors())
