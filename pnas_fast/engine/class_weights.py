"""Weights that make classes count alike in training, however many images each of them has."""

from __future__ import annotations

import torch
from torch import Tensor

from pnas_fast.data import DataSet
from pnas_fast.engine.settings import TrainingSettings


def class_weights(settings: TrainingSettings, data: DataSet) -> Tensor | None:
    """What the loss of an image is multiplied by, by its class; None where that is 1 for all of them.

    ``balanced`` is ``n / (k n_c)`` for n training images, n_c of them of class c, and k classes that have
    any: the mean over all training images is 1, and every class has the same share of it.

    Returns:
        fp32 (classes,), on the data set's device; 0 for classes without a training image.
    """
    if settings.class_weights == "none":
        return None
    counts = data.train_labels.bincount(minlength=data.classes).double()
    classes = (counts > 0).sum()
    weights = torch.where(counts > 0, counts.sum() / (classes * counts.clamp(min=1)), 0.0)
    return None if (weights[counts > 0] == 1).all() else weights.float()
