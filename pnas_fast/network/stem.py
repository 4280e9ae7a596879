"""Stems: the convolutions before the first searched cell (docs/method.md, 3.2, 6.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pnas_fast.kernels import Backend, State
from pnas_fast.network.layers import Convolution, Layer, Shape, new_weight
from pnas_fast.network.layout import Layout

STEM_MULTIPLIER = 3
"""The stem's channels are 3F where a layout does not say."""

VALID_KERNEL = 3


class ValidConvolution(Layer):
    """3×3 convolution of stride 2 without padding, batch norm, no ReLU.

    Backends pad as SAME does, which is another convolution; this one runs once a network, on an image of
    three channels, as PyTorch's own on every backend.
    """

    def __init__(self, backend: Backend[State], image: Shape, filters: int) -> None:
        height, width = ((size - VALID_KERNEL) // 2 + 1 for size in image[1:])
        if min(height, width) < 1:
            raise ValueError(f"image_shape is {tuple(image)}, allowed is a height and width of 3 or more")
        super().__init__(backend, Shape(filters, height, width))
        self.weight = new_weight(filters, image.channels, VALID_KERNEL, VALID_KERNEL)
        self.norm = nn.BatchNorm2d(filters)
        self._count(self.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, filters, (H - 1) // 2, (W - 1) // 2)."""
        z: Tensor = self.norm(F.conv2d(images, self.weight, stride=2))
        return z


class StridedStem(nn.Module):
    """Three 3×3 convolutions of stride 2, a ReLU before the second and third (DARTS on ImageNet)."""

    def __init__(self, backend: Backend[State], image: Shape, filters: int) -> None:
        super().__init__()
        self.first = _strided(backend, image, filters // 2, rectify=False)
        self.second = _strided(backend, self.first.shape, filters)
        self.third = _strided(backend, self.second.shape, filters)

    def forward(self, images: Tensor) -> tuple[State, State]:
        """The last two results, at a quarter and an eighth of the image's size."""
        before = self.second(self.first(images))
        return before, self.third(before)


def build_stem(
    layout: Layout, backend: Backend[State], image: Shape
) -> tuple[Convolution | ValidConvolution | StridedStem, list[Shape]]:
    """The stem of a layout, and the shapes of the states that it gives."""
    filters = layout.stem_filters or STEM_MULTIPLIER * layout.filters
    match layout.stem:
        case "cifar":
            stem = Convolution(backend, image, filters, kernel=(3, 3), rectify=False)
            return stem, [stem.shape]
        case "imagenet":
            valid = ValidConvolution(backend, image, filters)
            return valid, [valid.shape]
        case "strided":
            strided = StridedStem(backend, image, filters)
            return strided, [strided.second.shape, strided.third.shape]


def _strided(backend: Backend[State], source: Shape, filters: int, rectify: bool = True) -> Convolution:
    return Convolution(backend, source, filters, kernel=(3, 3), stride=(2, 2), rectify=rectify)
