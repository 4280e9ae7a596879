"""Whole children on the CPU backend beside eager ones: losses, evaluation, weights, memory."""

from collections.abc import Callable

import torch
from torch import Tensor

from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell
from pnas_fast.training import Stepper, TrainingSettings

ALL_OPERATIONS = (
    "0:sep3x3+1:sep5x5,1:sep7x7+2:conv1x7_7x1,0:identity+3:avg_pool3x3,1:max_pool3x3+2:dil_conv3x3"
)
STEPS, BATCH = 30, 8
EVEN, ODD = (3, 8, 8), (2, 9, 11)

Step = Callable[[int], float]


def child(cell: str, backend: str, image: tuple[int, ...] = EVEN, drop_path: float = 0.0) -> ChildNetwork:
    torch.manual_seed(0)
    network = ChildNetwork(Cell.parse(cell), 1, 4, 5, image, backend, drop_path)
    network.set_progress(1.0)
    return network


def losses(network: ChildNetwork, image: tuple[int, ...], rate: float = 0.05) -> Tensor:
    """Of each of the first steps, on the same batches, labels and drop-path masks for every network."""
    stepper = Stepper(network, TrainingSettings(learning_rate=rate))
    generator = torch.Generator().manual_seed(1)
    found = []
    dtype = network.classifier.weight.dtype
    for step in range(STEPS):
        labels = torch.randint(5, (BATCH,), generator=generator)
        images = torch.randn(BATCH, *image, generator=generator) + labels.view(-1, 1, 1, 1) / 2
        torch.manual_seed(step)
        found.append(stepper.step(images.to(dtype), labels, step / STEPS).double())
    return torch.stack(found)
