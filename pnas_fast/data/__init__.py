"""Data sets for training children: loading by name, and batches of normalised, augmented images."""

from __future__ import annotations

import torch

from pnas_fast.data import cifar10, digits, synthetic
from pnas_fast.data.batches import Batch, TrainingBatches, ValidationBatches
from pnas_fast.data.dataset import DataError, DataSet
from pnas_fast.data.download import Progress

__all__ = [
    "Batch",
    "DataError",
    "DataSet",
    "Progress",
    "TrainingBatches",
    "ValidationBatches",
    "load",
]


def load(
    spec: str, *, download: bool = False, progress: Progress | None = None, device: torch.device | str = "cpu"
) -> DataSet:
    """Load a data set whole into the memory of a device.

    Args:
        spec: ``digits``, ``cifar10:DIR`` or ``synthetic:HxWxC/CLASSES``.
        download: fetch CIFAR-10 into DIR when its files are not all there.
        progress: called with (bytes done, bytes in all) while downloading.
        device: where the tensors go.

    Raises:
        DataError: an unknown spec, or a data set that cannot be read or is not what it should be.
    """
    kind, _, argument = spec.partition(":")
    if spec == "digits":
        data = digits.load()
    elif kind == "cifar10" and argument:
        data = cifar10.load(argument, download=download, progress=progress)
    elif kind == "synthetic":
        data = synthetic.load(argument)
    else:
        raise DataError(
            f"data {spec!r} is unknown, allowed are digits, cifar10:DIR and synthetic:HxWxC/CLASSES"
        )
    return data.to(device)
