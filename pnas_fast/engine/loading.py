"""The data set that a configuration's children train on."""

from __future__ import annotations

from dataclasses import replace

from pnas_fast.data import DataSet, Pictures, source
from pnas_fast.data.augmentation import augmented
from pnas_fast.data.watch import Watch
from pnas_fast.engine.settings import TrainingSettings
from pnas_fast.protocols import DataSource


def settings_source(
    settings: TrainingSettings, *, download: bool = False, watch: Watch | None = None
) -> DataSource:
    """Where the data set that settings name comes from; nothing is read yet.

    Args:
        settings: those of `OF_DATA`, and ``loaders``, are read.
        download: fetch the data set, when it is opened, where its files are not all there.
        watch: who is told meanwhile.

    Raises:
        DataError: no such data set.
    """
    pictures = Pictures(settings.image_size, settings.skip_unreadable, settings.cache, settings.loaders)
    progress = None
    if watch is not None:
        pictures = replace(pictures, say=watch.say, progress=watch.decoded)
        progress = watch.fetched
    found = source(settings.data, download=download, progress=progress, pictures=pictures)
    return augmented(found, settings.flip, settings.crop_padding)


def load_training_data(
    settings: TrainingSettings, *, download: bool = False, watch: Watch | None = None
) -> DataSet:
    """The data set that settings name, cut to their ``train_images``, in the CPU's memory.

    Args:
        settings: those of the data and ``train_images`` are read.
        download: fetch the data set where its files are not all there.
        watch: who is told meanwhile.

    Raises:
        DataError: the data set is missing, damaged, or smaller than ``train_images``.
    """
    data: DataSet = settings_source(settings, download=download, watch=watch).open()
    return data.subset(settings.train_images) if settings.train_images else data
