"""The auxiliary classifier of training: a second loss halfway down the network (docs/method.md, 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.kernels import Backend, State
from pnas_fast.network.layers import Layer, Shape, new_weight

AUXILIARY_WEIGHT = 0.4
"""What the published recipes multiply this classifier's loss by."""

PROJECTED, FEATURES = 128, 768
POOL, POOL_STRIDE = 5, 3


class AuxiliaryHead(Layer):
    """ReLU, 5×5 average pool of stride 3 without padding, two convolutions, classifier.

    The convolutions are 1×1 to 128 channels and one over the whole pooled map to 768, each followed by
    batch norm and ReLU. It is small, and only runs while training: PyTorch's own operations on every backend.

    Args:
        backend: gives the state it reads as a tensor.
        source: the state's shape.
        classes: outputs.

    Raises:
        ValueError: a map below 5×5.
    """

    def __init__(self, backend: Backend[State], source: Shape, classes: int) -> None:
        if min(source.height, source.width) < POOL:
            raise ValueError(
                f"the auxiliary classifier would read a map of {source.height}×{source.width}, "
                f"allowed is {POOL}×{POOL} or more"
            )
        height, width = ((size - POOL) // POOL_STRIDE + 1 for size in source[1:])
        super().__init__(backend, Shape(classes, 1, 1))
        self.project = new_weight(PROJECTED, source.channels, 1, 1)
        self.project_norm = nn.BatchNorm2d(PROJECTED)
        self.reduce = new_weight(FEATURES, PROJECTED, height, width)
        self.reduce_norm = nn.BatchNorm2d(FEATURES)
        self.classifier = nn.Linear(FEATURES, classes)
        self._count(self.reduce, self.classifier.weight)
        self.multiply_adds += self.project.numel() * height * width

    def forward(self, state: State) -> Tensor:
        """Logits (N, classes) of a state (N, C, H, W)."""
        # In the weights' type: it is too small to gain from less.
        wide = self.backend.materialise(state).to(self.project.dtype)
        pooled = F.avg_pool2d(F.relu(wide), POOL, POOL_STRIDE)
        projected = F.relu(self.project_norm(F.conv2d(pooled, self.project)))
        features = F.relu(self.reduce_norm(F.conv2d(projected, self.reduce)))
        logits: Tensor = self.classifier(features.flatten(1))
        return logits
