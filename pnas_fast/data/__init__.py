"""Data sets for training children: where they come from, and batches of normalised, augmented images."""

from __future__ import annotations

import torch

from pnas_fast.data.arrays import as_source
from pnas_fast.data.batches import Batch, TrainingBatches, ValidationBatches
from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.digest import digest
from pnas_fast.data.download import Progress
from pnas_fast.data.folder import Pictures
from pnas_fast.data.source import Description, Source
from pnas_fast.data.sources import fetchable, forms, source

__all__ = [
    "Batch",
    "DataError",
    "DataSet",
    "Description",
    "Pictures",
    "Progress",
    "Source",
    "TrainingBatches",
    "ValidationBatches",
    "as_source",
    "digest",
    "fetchable",
    "forms",
    "load",
    "source",
]


def load(
    spec: str,
    *,
    download: bool = False,
    progress: Progress | None = None,
    pictures: Pictures | None = None,
    device: torch.device | str = "cpu",
) -> DataSet:
    """Load the data set that a text names whole into the memory of a device.

    Args:
        spec: one of `forms`.
        download: fetch it where its files are not all there.
        progress: called with (bytes done, bytes in all) while downloading.
        pictures: how image files become a data set, for kinds that are made of them.
        device: where the tensors go.

    Raises:
        DataError: an unknown spec, or a data set that cannot be read or is not what it should be.
    """
    data: DataSet = source(spec, download=download, progress=progress, pictures=pictures).open()
    return data.to(device)
