"""The data set that a configuration's children train on."""

from __future__ import annotations

from pnas_fast.data import DataSet, Progress, load
from pnas_fast.engine.settings import TrainingSettings


def load_training_data(
    settings: TrainingSettings, *, download: bool = False, progress: Progress | None = None
) -> DataSet:
    """The data set that settings name, cut to their ``train_images``, in the CPU's memory.

    Args:
        settings: ``data`` and ``train_images`` are read.
        download: fetch the data set where its files are not all there.
        progress: called with (bytes done, bytes in all) while downloading.

    Raises:
        DataError: the data set is missing, damaged, or smaller than ``train_images``.
    """
    data = load(settings.data, download=download, progress=progress)
    return data.subset(settings.train_images) if settings.train_images else data
