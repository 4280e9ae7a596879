"""The weights that are a training's result: kept, missed and, where a checkpoint allows, made again."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from pnas_fast.data import DataSet
from pnas_fast.runs.disk import writing
from pnas_fast.runs.weights import BEST, WeightsError, load_child, save_child
from pnas_fast.train.checkpoint import CheckpointError, whole_checkpoints
from pnas_fast.train.heldout import TEST
from pnas_fast.train.training import LongTraining


def keep_best(training: LongTraining, data: DataSet, folder: Path) -> None:
    """Write the weights that are judged now as a run's best.

    What was measured of others on test images goes first.

    Raises:
        DiskError: they cannot be written.
    """
    with writing(folder / TEST):
        (folder / TEST).unlink(missing_ok=True)
    with writing(folder / BEST):
        save_child(training.judged, data, folder / BEST)


def unusable_best(folder: Path) -> str | None:
    """What is wrong with the weights that a run has kept; None where they can be used."""
    path = folder / BEST
    if not path.exists():
        return f"{path}: is missing"
    if not path.is_file():  # a pipe would be waited for
        return f"{path}: is no file"
    try:
        load_child(path)
    except WeightsError as error:
        return str(error)
    return None


def rebuilt_best(training: LongTraining, data: DataSet, folder: Path, as_good: Container[int]) -> int | None:
    """Write a run's weights anew where a checkpoint was taken right after an epoch that they may be of.

    Args:
        training: is somewhere else afterwards.
        data: the data set.
        folder: of the run.
        as_good: the numbers of those epochs.

    Returns:
        The number of that epoch; None where no checkpoint is of one, and nothing has been written.
    """
    for checkpoint in reversed(whole_checkpoints(folder)):
        if checkpoint.place.index == 0 and checkpoint.place.epoch in as_good:
            try:
                training.restore(checkpoint)
            except CheckpointError:
                continue
            keep_best(training, data, folder)
            return checkpoint.place.epoch
    return None
