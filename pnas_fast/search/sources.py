"""The data of a search: a source, cut to as many training images as each child is trained on."""

from __future__ import annotations

from pnas_fast.data import DataSet, as_source
from pnas_fast.data.augmentation import check_cutout
from pnas_fast.data.few_shot import check_tasks
from pnas_fast.data.watch import Watch
from pnas_fast.engine import settings_source
from pnas_fast.engine.few_shot import REPTILE
from pnas_fast.protocols import DataSource
from pnas_fast.search.config import SearchConfig


def source_of(config: SearchConfig, *, download: bool = False, watch: Watch | None = None) -> DataSource:
    """The data that a configuration's children train on.

    Args:
        config: of the search.
        download: fetch the data set, when it is opened, where its files are not all there.
        watch: who is told meanwhile.

    Raises:
        DataError: as `cut`, or there is no such data set.
    """
    return cut(settings_source(config, download=download, watch=watch), config.train_images)


def opened(config: SearchConfig, source: DataSource) -> DataSet:
    """The data set of a source, which has all that a search's children are measured by.

    Raises:
        DataError: it is missing or damaged, or lacks test images, classes or images that are needed.
        ConfigError: cutout could blank out a whole image.
    """
    data: DataSet = source.open()
    check_cutout(data, config.cutout)
    if config.test_children:
        data.tested()
    if config.evaluator == REPTILE:
        check_tasks(data, *config.task_sizes)
    return data


def cut(source: DataSource, train_images: int) -> DataSource:
    """The source itself for 0, else one with only its first training images.

    Raises:
        DataError: it is missing, damaged, or has fewer.
    """
    return as_source(source.open().subset(train_images)) if train_images else source
