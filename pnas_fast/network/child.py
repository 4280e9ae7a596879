"""The child network that a search trains to judge a cell (SPEC 2 and 3.2, CIFAR layout)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pnas_fast.kernels import get_backend
from pnas_fast.network.cell import CellModule
from pnas_fast.network.layers import Convolution, Layer, Shape
from pnas_fast.space import Cell

STEM_MULTIPLIER = 3


class ChildNetwork(nn.Module):
    """Stem, 3N cells, global pooling, classifier.

    The stem is a 3×3 convolution to 3F channels with batch norm and no ReLU. Cells N and 2N (counted
    from 0) have stride 2 and double the filters. The head is ReLU, global average pool, linear.

    Args:
        cell: the cell that every layer repeats.
        repeats: N.
        filters: F, channels of a block in the first cells.
        classes: outputs.
        image_shape: (C, H, W) of the input images; any size.
        backend: a name in `pnas_fast.kernels.BACKENDS`.
        drop_path: largest probability of dropping an operation's result while training; it grows
            linearly with depth and with `set_progress`.

    Attributes:
        parameters_count: trainable parameters.
        multiply_adds: of convolutions and the classifier for one image.

    Raises:
        ValueError: a size below 1, or a backend that does not exist.
    """

    def __init__(
        self,
        cell: Cell,
        repeats: int,
        filters: int,
        classes: int,
        image_shape: Sequence[int],
        backend: str = "eager",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        _check_sizes(repeats, filters, classes, image_shape)
        self.drop_path = drop_path
        self.backend = kernels = get_backend(backend)
        image = Shape(*image_shape)
        self.stem = Convolution(kernels, image, STEM_MULTIPLIER * filters, kernel=(3, 3), rectify=False)
        cells = []
        before = previous = self.stem.shape
        for index in range(3 * repeats):
            stride = 2 if index in (repeats, 2 * repeats) else 1
            filters *= stride
            module = CellModule(cell, kernels, before, previous, filters, stride=stride, first=index == 0)
            cells.append(module)
            before, previous = previous, module.shape
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(previous.channels, classes)

    @property
    def parameters_count(self) -> int:
        """Trainable parameters: convolutions, batch norm scales and shifts, the classifier."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and the classifier for one image, exactly."""
        layers = sum(module.multiply_adds for module in self.modules() if isinstance(module, Layer))
        return layers + self.classifier.weight.numel()

    def set_progress(self, progress: float) -> None:
        """Set how far training has come, in [0, 1]: drop-path's keep probability at cell i of n is
        ``1 - drop_path * progress * (i + 1) / n`` (SPEC 3.3, scheduled drop path).
        """
        for index, cell in enumerate(self.cells):
            assert isinstance(cell, CellModule)
            cell.drop.keep = 1.0 - self.drop_path * progress * (index + 1) / len(self.cells)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, C, H, W)."""
        before = previous = self.stem(images.contiguous(memory_format=torch.channels_last))
        for cell in self.cells:
            before, previous = previous, cell(before, previous)
        logits: Tensor = self.classifier(self.backend.global_average(previous))
        return logits


def _check_sizes(repeats: int, filters: int, classes: int, image_shape: Sequence[int]) -> None:
    for name, value in (("repeats", repeats), ("filters", filters), ("classes", classes)):
        if value < 1:
            raise ValueError(f"{name} is {value}, allowed is 1 or more")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape is {tuple(image_shape)}, allowed is (C, H, W), each 1 or more")
