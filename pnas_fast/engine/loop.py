"""A training's state on its device, and the step that advances it."""

from __future__ import annotations

import torch

from pnas_fast.data import TrainingBatches
from pnas_fast.engine.stepper import Stepper
from pnas_fast.network import CellNetwork


class TrainingLoop:
    """A training step without arguments, and its state: counters and losses, on the device.

    A step needs nothing from outside: it makes the batch of its own counter, sets learning rate and
    drop-path by it, and adds up the loss. So it is the same step on a CPU and in a CUDA graph, and nothing
    waits for the device until somebody asks for the loss.

    Args:
        network: to be trained; on the batches' device.
        stepper: of the network.
        batches: of all epochs.
        epochs: of the whole training.

    Attributes:
        losses: the sum of the epoch's losses so far, float64, on the device.
    """

    def __init__(self, network: CellNetwork, stepper: Stepper, batches: TrainingBatches, epochs: int) -> None:
        self._network, self._stepper, self._batches = network, stepper, batches
        self._steps = epochs * len(batches)
        self._index = torch.zeros((), dtype=torch.int64, device=batches.device)
        self._done = torch.zeros((), dtype=torch.int64, device=batches.device)
        self.losses = torch.zeros((), dtype=torch.float64, device=batches.device)

    def begin(self, epoch: int, index: int = 0) -> None:
        """Go to a batch of an epoch, both counted from 0, and clear the losses."""
        self._batches.begin(epoch, index)
        self._index.fill_(index)
        self.losses.zero_()
        self._done.fill_(epoch * len(self._batches) + index)

    def feed(self) -> None:
        """Fetch the next batch where images are streamed: once before each step, outside of any graph.

        Raises:
            DataError: one of its images cannot be read.
        """
        self._batches.feed()

    def step(self) -> None:
        """Train on the next batch."""
        progress = self._done.double() / self._steps
        self._network.set_progress(progress)
        images, labels = self._batches.take(self._index)
        self.losses += self._stepper.step(images, labels, progress)
        self._index += 1
        self._done += 1

    def loss(self) -> float:
        """The mean loss of the epoch's steps; waits for the device."""
        return float(self.losses / self._index)

    def is_finite(self) -> bool:
        """Whether every weight is a finite number; waits for the device, once."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self._network.parameters()])
        return bool(finite.all())
