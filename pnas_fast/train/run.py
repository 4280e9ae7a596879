"""A long training from what its folder holds to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pnas_fast.data import DataSet
from pnas_fast.train.best import keep_best, rebuilt_best, unusable_best
from pnas_fast.train.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
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
from pnas_fast.train.history import (
    HISTORY,
    Epoch,
    HistoryError,
    best_accuracy,
    judged_by,
    read_history,
    write_history,
)
from pnas_fast.train.initial import begin_with
from pnas_fast.train.machine import Machine
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
    """Set by whoever wants a training to stop after the step it is at; ``for_batch`` by a batch system."""

    asked: bool = False
    for_batch: bool = False

    def ask(self, *, for_batch: bool = False) -> None:
        """Ask; who was first is remembered."""
        if not self.asked:
            self.asked, self.for_batch = True, for_batch


class Run:
    """One training and its folder.

    Args:
        training: at its beginning.
        config: its own.
        folder: opened by this process if it leads its group.
        shared: the folder that this training shares with those of other seeds; alone, it is its own.
        data: on this process's device.
        group: the processes that train together; the first one alone writes.
        display: is told how far it is.
        stop: is looked at after every step.

    Raises:
        CheckpointError: checkpoints exist, and none can be used; or they are gone, or the best weights are,
            and nothing can make them again.
        HistoryError: the folder's history is damaged.
        WeightsError: it is at its beginning, and the weights to begin with are gone or others.
    """

    def __init__(
        self,
        training: LongTraining,
        config: TrainConfig,
        folder: Path,
        shared: Path,
        data: DataSet,
        group: Group,
        display: Display,
        stop: Stop,
    ) -> None:
        self._training, self._config, self._folder, self._data = training, config, folder, data
        self._shared, self._group, self._display, self._stop = shared, group, display, stop
        self._machine = Machine.here(config, group.size)
        self._judges = config.on != "all"  # else validation images were trained on, and judge nothing
        self._place, self._history = Place(), read_history(folder, judged=self._judges)
        self._go_on()
        self._saved = self._looked = self._drawn = time.monotonic()

    @property
    def best(self) -> Epoch | None:
        """The epoch whose weights are kept; None where the history does not say."""
        return next((record for record in self._history if record.judged == self._place.best), None)

    @property
    def history(self) -> Sequence[Epoch]:
        """The epochs so far."""
        return self._history

    def train(self) -> None:
        """Train to the last epoch.

        Raises:
            Stopped: as it was asked to.
            TrainError: training diverged.
            DiskError: a file of the run cannot be written; checkpoints that were stay.
        """
        for epoch in range(self._place.epoch, self._config.epochs):
            self._train_epoch(epoch)
            self._finish_epoch(epoch)
        self._draw()

    def _go_on(self) -> None:
        checkpoint = latest_checkpoint(self._folder, self._display.note)
        if checkpoint is None:
            self._begin()
        else:
            self._restore(checkpoint)
        # Nobody writes before everybody has read, and what they read must be the same.
        if not self._group.agree(self._place.epoch * self._training.steps + self._place.index):
            raise CheckpointError(f"{self._folder}: processes find different checkpoints there")
        if self._group.leads:
            self._require_best(checkpoint)
            discard_unusable(self._folder, self._place)

    def _begin(self) -> None:
        """Be at the beginning, unless a history says that there were checkpoints."""
        done = self._history[-1].epoch if self._history else 0
        if done == self._config.epochs:
            self._place = Place(done, 0, best_accuracy(self._history))
        elif done > 1:  # a history of one epoch is written before the first checkpoint
            raise CheckpointError(
                f"{self._folder / CHECKPOINTS}: holds no checkpoint, and {HISTORY} tells of {done} epochs; "
                "put them back, or remove the run's folder to train from the beginning"
            )
        else:
            self._history = []
            if self._config.init:
                leads = self._group.leads
                self._display.note(begin_with(self._training, self._config, self._shared, leads=leads))

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._training.restore(checkpoint)
        self._place = place = checkpoint.place
        self._history = [record for record in self._history if record.epoch <= place.epoch]
        if place.epoch and not self._history:
            self._display.note(
                f"{self._folder / HISTORY}: is missing; it begins anew after epoch {place.epoch}"
            )
        elif place.epoch and self._history[-1].epoch != place.epoch:
            raise HistoryError(
                f"{self._folder / HISTORY}: ends with epoch {self._history[-1].epoch}, the checkpoint with "
                f"epoch {place.epoch}; put the whole file back, or remove it to begin it anew"
            )
        unfinished = place.epoch < self._config.epochs
        change = checkpoint.machine.change(self._machine) if checkpoint.machine and unfinished else None
        if change:
            self._display.note(change)

    def _require_best(self, checkpoint: Checkpoint | None) -> None:
        """See to it that the weights that are the result so far are there, or say that they are lost."""
        if self._judges:
            kept = {record.epoch for record in self._history if record.judged == self._place.best}
            expected = self._place.best >= 0
        else:
            kept = {self._config.epochs}
            expected = self._place.epoch == self._config.epochs
        which = "best" if self._judges else "last"
        fault = unusable_best(self._folder) if expected else None
        if fault is None:
            return
        epoch = rebuilt_best(self._training, self._data, self._folder, kept)
        if checkpoint is not None:
            self._training.restore(checkpoint)
        if epoch is not None:
            self._display.note(f"{fault}; made again from the checkpoint after epoch {epoch}")
        elif self._place.epoch == self._config.epochs:
            raise CheckpointError(
                f"{fault}, and no checkpoint holds the {which} weights; put the file back, or remove the "
                "run's folder to train from the beginning"
            )
        else:
            self._display.note(
                f"{fault}, and no checkpoint holds the best weights so far; the best from here on are kept"
            )
            self._place = replace(self._place, best=-1.0)

    def _train_epoch(self, epoch: int) -> None:
        training = self._training
        started = time.monotonic() - self._place.seconds
        while self._place.index < training.steps:
            training.step(epoch, self._place.index)
            now = time.monotonic()
            self._place = replace(self._place, index=self._place.index + 1, seconds=now - started)
            self._show(now)
            if self._group.any(self._stop.asked or self._display.closed):
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
        record = Epoch(epoch + 1, loss, None, None, place.seconds, images)
        if self._judges:
            record = judged_by(record, *training.evaluate(), place.best)
        self._history.append(record)
        # Killed before the checkpoint below, the epoch is trained again, and these are written again.
        if self._group.leads:
            if self._is_result(record):
                keep_best(self._training, self._data, self._folder)
            write_history(self._folder, self._history)
        self._place = Place(epoch + 1, 0, max(place.best, best_accuracy([record])))
        self._save()
        self._display.epoch(record, self._place.best)
        if time.monotonic() - self._drawn > DRAW_SECONDS:
            self._draw()

    def _is_result(self, record: Epoch) -> bool:
        """Whether an epoch's weights are the result, as far as one can know after it."""
        if record.judged is None:
            return record.epoch == self._config.epochs
        return record.judged > self._place.best

    def _show(self, now: float) -> None:
        place, loss = self._place, None
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            loss = self._training.loss_so_far(place.index)
        self._display.step(place.epoch, place.index, loss)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._group.leads:
            write_curves(self._folder, self._history)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._group.leads:
            save_checkpoint(self._folder, self._place, self._machine, self._training.tensors())
