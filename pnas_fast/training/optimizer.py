"""The optimisers of a training, all of whose state is on the device of the parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pnas_fast.training.settings import TrainingSettings


def build_optimizer(
    parameters: Sequence[nn.Parameter], settings: TrainingSettings, rate: Tensor
) -> torch.optim.Optimizer:
    """PyTorch's optimiser for the settings' recipe.

    Weight decay is on weights of convolutions and classifiers, not on batch norm's scales and shifts nor on
    biases.

    Args:
        parameters: all of a network, on one device.
        settings: ``optimizer`` and ``weight_decay`` are read.
        rate: the learning rate, of no dimensions, on that device; the optimiser reads it at every step.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "rmsprop":
        return _rmsprop(groups, rate)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=True)
    for parameter in parameters:
        # From zero the first step gives the same. Left to the optimiser, the memory would hold anything
        # if that step were one that loss scaling leaves out.
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _rmsprop(groups: list[dict[str, object]], rate: Tensor) -> torch.optim.Optimizer:
    cuda = rate.is_cuda
    optimizer = torch.optim.RMSprop(
        groups, lr=rate, alpha=0.9, eps=1.0, momentum=0.9, foreach=cuda, capturable=cuda
    )
    # It would warn of steps outside of a graph, which those before a capture are.
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer
