"""How good weights are after they were adapted to tasks: few-shot accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import fmean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.data.few_shot import Task
from pnas_fast.engine.graph import Step
from pnas_fast.engine.reptile import Adam, Adaptation
from pnas_fast.kernels._torch_internals import foreach_copy_


class Judged(NamedTuple):
    """Over tasks, the mean accuracy, its standard error, and the mean cross-entropy in nats."""

    accuracy: float
    error: float
    loss: float


def judge(
    network: nn.Module, optimizer: Adam, adaptation: Adaptation, questions: Questions, tasks: Iterable[Task]
) -> Judged:
    """Adapt a network to each task and ask it; weights and optimiser begin each task as they are now.

    Args:
        network: is left as it was.
        optimizer: likewise.
        adaptation: of both.
        questions: asked after it.
        tasks: two or more. The standard error is ``s / √tasks``, with the standard deviation s of their
            accuracies.
    """
    tensors = [*(parameter.detach() for parameter in network.parameters()), *optimizer.memory]
    kept = [tensor.clone() for tensor in tensors]
    accuracies, losses = list[float](), list[float]()
    for task in tasks:
        adaptation.adapt(task)
        accuracy, loss = questions.ask()
        accuracies.append(accuracy)
        losses.append(loss)
        foreach_copy_(tensors, kept)
    return Judged(fmean(accuracies), stdev(accuracies) / math.sqrt(len(accuracies)), fmean(losses))


class Questions:
    """What a network is asked after it was adapted to a task.

    Batch norm uses the statistics of the batch at hand, here as in training. Not transductive: each question
    is shown in a batch of its own, with all images adapted to beside it, so that no question sees another.
    Transductive: all questions are one batch.

    Args:
        network: returns logits.
        adaptation: whose task is asked about.
        shots: images of each class that are adapted to, which come first; the others are asked about.
        transductive: see above.
        replay: makes a step that does the same without Python.
    """

    def __init__(
        self,
        network: nn.Module,
        adaptation: Adaptation,
        shots: int,
        transductive: bool,
        replay: Callable[[Step], Step] = lambda step: step,
    ) -> None:
        self._network, self._task = network, adaptation.task
        support, asked = _places(self._task.labels, shots)
        self._asked = asked
        self._batches = asked[None] if transductive else _each_beside(support, asked)
        self._count = len(asked) if transductive else 1
        self._index = torch.zeros(1, dtype=torch.int64, device=asked.device)
        self._correct, self._loss = (
            torch.zeros((), dtype=torch.float64, device=asked.device) for _ in range(2)
        )
        self._step = replay(self._ask)

    def ask(self) -> tuple[float, float]:
        """The share of right answers, and the mean cross-entropy in nats."""
        self._network.train()
        for counter in (self._index, self._correct, self._loss):
            counter.zero_()
        with torch.no_grad():
            for _ in range(len(self._batches)):
                self._step()
        return float(self._correct) / len(self._asked), float(self._loss) / len(self._asked)

    def _ask(self) -> None:
        places = self._batches.index_select(0, self._index).view(-1)
        logits: Tensor = self._network(self._task.images.index_select(0, places))[-self._count :]
        labels = self._task.labels.index_select(0, places[-self._count :])
        self._correct += (logits.argmax(1) == labels).sum()
        self._loss += F.cross_entropy(logits.float(), labels, reduction="sum")
        self._index += 1


def _places(labels: Tensor, shots: int) -> tuple[Tensor, Tensor]:
    """Of a task's images those that are adapted to, and those that are asked about."""
    each = int((labels == 0).sum())
    places = torch.arange(len(labels), device=labels.device).view(-1, each)
    return places[:, :shots].reshape(-1), places[:, shots:].reshape(-1)


def _each_beside(support: Tensor, asked: Tensor) -> Tensor:
    return torch.cat([support.expand(len(asked), -1), asked[:, None]], 1)
