"""The data of a search: a source, cut to as many training images as each child is trained on."""

from __future__ import annotations

from pnas_fast.data import as_source
from pnas_fast.protocols import DataSource


def cut(source: DataSource, train_images: int) -> DataSource:
    """The source itself for 0, else one with only its first training images.

    Raises:
        DataError: it is missing, damaged, or has fewer.
    """
    return as_source(source.open().subset(train_images)) if train_images else source
