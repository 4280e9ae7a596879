"""The child of one cell, ``0:sep3x3+1:max_pool3x3`` at N = 1 on even maps, in PyTorch's own modules alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = "0:sep3x3+1:max_pool3x3"


class Half(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        # An even map's SAME padding at stride 2 is one pixel, after it.
        pad = nn.ZeroPad2d((1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        super().__init__(nn.ReLU(), pad, depthwise, pointwise, nn.BatchNorm2d(outputs))


class Reduce(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        out: Tensor = self.norm(torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(x[:, :, 1::2, 1::2])], 1))
        return out


def project(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class PlainCell(nn.Module):
    def __init__(self, before: nn.Module, between: int, previous: int, filters: int, stride: int) -> None:
        super().__init__()
        self.before = before
        self.previous = project(previous, filters)
        self.left = nn.Sequential(Half(between, filters, stride), Half(filters, filters, 1))
        self.stride = stride

    def forward(self, before: Tensor, previous: Tensor) -> Tensor:
        left: Tensor = self.left(self.before(before))
        pad = (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1)
        padded = F.pad(self.previous(previous), pad, value=float("-inf"))
        return left + F.max_pool2d(padded, 3, self.stride)


class PlainChild(nn.Module):
    def __init__(self, filters: int, classes: int, channels: int) -> None:
        super().__init__()
        f, stem = filters, 3 * filters
        self.stem = nn.Sequential(nn.Conv2d(channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList(
            [
                PlainCell(nn.Identity(), stem, stem, f, 1),
                PlainCell(project(stem, 2 * f), 2 * f, f, 2 * f, 2),
                PlainCell(Reduce(f, 4 * f), 4 * f, 2 * f, 4 * f, 2),
            ]
        )
        self.classifier = nn.Linear(4 * f, classes)

    def forward(self, images: Tensor) -> Tensor:
        states = [self.stem(images)] * 2
        for cell in self.cells:
            states.append(cell(*states[-2:]))
        logits: Tensor = self.classifier(states[-1].relu().mean((2, 3)))
        return logits


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """All parameters, which both networks must have in the same order and of the same shapes."""
    for own, other in zip(target.parameters(), source.parameters(), strict=True):
        assert own.shape == other.shape
        own.data.copy_(other.data)
