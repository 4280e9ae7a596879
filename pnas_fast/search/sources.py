"""The data of a search: a source, cut to as many training images as each child is trained on."""

from __future__ import annotations

from pnas_fast.data import as_source
from pnas_fast.data.watch import Watch
from pnas_fast.engine import settings_source
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


def cut(source: DataSource, train_images: int) -> DataSource:
    """The source itself for 0, else one with only its first training images.

    Raises:
        DataError: it is missing, damaged, or has fewer.
    """
    return as_source(source.open().subset(train_images)) if train_images else source
