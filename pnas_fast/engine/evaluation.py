"""How good a network is on the validation images."""

from __future__ import annotations

import math
from contextlib import closing
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.data import DataSet, ValidationBatches
from pnas_fast.engine.graph import graphed
from pnas_fast.engine.streams import Ahead, Steps, current_stream, to_end

EVALUATION_BATCH = 512

Recalls = tuple[float | None, ...]
"""The share of right answers among the images of each class, in [0, 1]; None for a class without images."""


class Evaluation(NamedTuple):
    """Of how many validation images how many were classified rightly, and the mean cross-entropy in nats.

    ``right`` counts right answers and ``of`` images, of each class.
    """

    right: tuple[int, ...]
    of: tuple[int, ...]
    loss: float

    @property
    def correct(self) -> int:
        """Right answers."""
        return sum(self.right)

    @property
    def images(self) -> int:
        """Images."""
        return sum(self.of)

    @property
    def accuracy(self) -> float:
        """The share of right answers, in [0, 1]."""
        return self.correct / self.images

    @property
    def recalls(self) -> Recalls:
        """The share of right answers among the images of each class."""
        return tuple(
            right / count if count else None for right, count in zip(self.right, self.of, strict=True)
        )

    @property
    def balanced_accuracy(self) -> float:
        """The mean of `recalls` over the classes that have images: accuracy if all had equally many."""
        return balanced(self.recalls)


def balanced(recalls: Recalls) -> float:
    """Balanced accuracy: the mean over the classes that have images; NaN without any."""
    known = [recall for recall in recalls if recall is not None]
    return math.fsum(known) / len(known) if known else math.nan


def evaluate(network: nn.Module, data: DataSet, dtype: torch.dtype = torch.float32) -> Evaluation:
    """Right answers and cross-entropy on the validation images, with running statistics.

    The cross-entropy is that of the labels as they are, without smoothing: ``-mean(log p(label))``, in
    fp32 for each batch and added up in fp64.

    Args:
        network: on the data set's device; it is left in evaluation mode.
        data: the data set.
        dtype: of the images that the network is shown.

    Raises:
        DataError: a streamed image cannot be read.
    """
    return to_end(evaluating(network, data, dtype))


def evaluating(network: nn.Module, data: DataSet, dtype: torch.dtype = torch.float32) -> Steps[Evaluation]:
    """`evaluate` that stops while it waits for the device, having given it all there is to do."""
    network.eval()
    # No stop in here: what else is done meanwhile would be done in this mode.
    with torch.inference_mode(), closing(ValidationBatches(data, EVALUATION_BATCH, dtype=dtype)) as batches:
        counter = _Counter(network, batches, data.classes)
        step = graphed(counter.step, counter.right.device, warm_up=1)
        batches.begin()
        for _ in range(len(batches)):
            batches.feed()
            step()
    yield from Ahead(current_stream(counter.right.device)).until_done()
    of = data.validation_labels.bincount(minlength=data.classes)
    loss = float(counter.loss) / len(data.validation_labels)
    return Evaluation(tuple(counter.right[1:].tolist()), tuple(of.tolist()), loss)


class _Counter:
    """Right answers and cross-entropy so far, and the batch that comes next, on the device."""

    def __init__(self, network: nn.Module, batches: ValidationBatches, classes: int) -> None:
        self._network = network
        self._batches = batches
        # The first is of the label -1, which fills the last batch up and which no answer is.
        self.right = torch.zeros(1 + classes, dtype=torch.int64, device=batches.device)
        self.loss = torch.zeros((), dtype=torch.float64, device=batches.device)
        self._index = torch.zeros((), dtype=torch.int64, device=batches.device)

    def step(self) -> None:
        images, labels = self._batches.take(self._index)
        logits: Tensor = self._network(images)
        self.right.index_add_(0, labels + 1, (logits.argmax(dim=1) == labels).to(torch.int64))
        self.loss += F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
        self._index += 1
