"""How good a network is on the validation images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.data import DataSet, ValidationBatches
from pnas_fast.engine.graph import graphed

EVALUATION_BATCH = 512


class Evaluation(NamedTuple):
    """Of how many validation images how many were classified rightly, and the mean cross-entropy in nats."""

    correct: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The share of right answers, in [0, 1]."""
        return self.correct / self.images


def evaluate(network: nn.Module, data: DataSet, dtype: torch.dtype = torch.float32) -> Evaluation:
    """Right answers and cross-entropy on the validation images, with running statistics.

    The cross-entropy is that of the labels as they are, without smoothing: ``-mean(log p(label))``, in
    fp32 for each batch and added up in fp64.

    Args:
        network: on the data set's device; it is left in evaluation mode.
        data: the data set.
        dtype: of the images that the network is shown.
    """
    network.eval()
    with torch.inference_mode():
        counter = _Counter(network, ValidationBatches(data, EVALUATION_BATCH, dtype=dtype))
        step = graphed(counter.step, counter.correct.device, warm_up=1)
        for _ in range(len(counter.batches)):
            step()
    images = len(data.validation_labels)
    return Evaluation(int(counter.correct), images, float(counter.loss) / images)


class _Counter:
    """Right answers and cross-entropy so far, and the batch that comes next, on the device."""

    def __init__(self, network: nn.Module, batches: ValidationBatches) -> None:
        self._network = network
        self.batches = batches
        self.correct = torch.zeros((), dtype=torch.int64, device=batches.device)
        self.loss = torch.zeros((), dtype=torch.float64, device=batches.device)
        self._index = torch.zeros_like(self.correct)

    def step(self) -> None:
        images, labels = self.batches.take(self._index)
        logits: Tensor = self._network(images)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.loss += F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
        self._index += 1
