"""How good a network is on the validation images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pnas_fast.data import DataSet, ValidationBatches
from pnas_fast.engine.graph import graphed

EVALUATION_BATCH = 512


def evaluate(network: nn.Module, data: DataSet, dtype: torch.dtype = torch.float32) -> float:
    """Accuracy in [0, 1] on the validation images, with running statistics.

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
    return int(counter.correct) / len(data.validation_labels)


class _Counter:
    """Right answers so far, and the batch that comes next, on the device."""

    def __init__(self, network: nn.Module, batches: ValidationBatches) -> None:
        self._network = network
        self.batches = batches
        self.correct = torch.zeros((), dtype=torch.int64, device=batches.device)
        self._index = torch.zeros_like(self.correct)

    def step(self) -> None:
        images, labels = self.batches.take(self._index)
        answers: Tensor = self._network(images).argmax(dim=1)
        self.correct += (answers == labels).sum()
        self._index += 1
