"""A network of cells: children of a search and published networks alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pnas_fast.kernels import get_backend
from pnas_fast.network.auxiliary import AuxiliaryHead
from pnas_fast.network.cell import CellModule
from pnas_fast.network.drop_path import ScheduledDropPath
from pnas_fast.network.genotype import Genotype
from pnas_fast.network.layers import Layer, SeparableHalf, Shape
from pnas_fast.network.layout import Layout
from pnas_fast.network.stem import build_stem

LONGEST_REACH = 3
"""States that the next cell may read: no H[c-2] is further back."""


class Logits(NamedTuple):
    """What a network with an auxiliary classifier returns while training, (batch, classes) each."""

    main: Tensor
    auxiliary: Tensor


class CellNetwork(nn.Module):
    """Stem, cells, global pooling, dropout, classifier.

    Args:
        genotype: the normal and the reduction cell.
        layout: how many of them, how wide, and all that surrounds them.
        classes: outputs.
        image_shape: (C, H, W) of the input images; any size.
        backend: a name in `pnas_fast.kernels.BACKENDS`.
        drop_path: largest probability of dropping an operation's result while training; it grows
            linearly with depth and with `set_progress`.
        auxiliary: whether there is an auxiliary classifier (docs/method.md, 3.2).

    Attributes:
        genotype, layout, image_shape: as given.
        places: the positions of its cells, the stem's included.
        auxiliary_place: the index of the cell that the auxiliary classifier reads, if there is one.
        parameters_count: trainable parameters.
        multiply_adds: of convolutions and classifiers for one image.

    Raises:
        ValueError: a size below 1, an image too small for the stem or the auxiliary classifier, or a backend
            that does not exist.
    """

    def __init__(
        self,
        genotype: Genotype,
        layout: Layout,
        classes: int,
        image_shape: Sequence[int],
        *,
        backend: str = "eager",
        drop_path: float = 0.0,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(layout.repeats, layout.filters, classes, image_shape)
        self.genotype, self.layout = genotype, layout
        self.image_shape = Shape(*image_shape)
        self.backend = kernels = get_backend(backend)
        self.stem, shapes = build_stem(layout, kernels, self.image_shape)
        self.places = layout.places()
        cells: list[CellModule] = []
        for place in self.places:
            wiring = genotype.reduction if place.reduction else genotype.normal
            cell = CellModule(
                wiring, kernels, shapes[-place.back :][0], shapes[-1], place, layout, first=not cells
            )
            cells.append(cell)
            shapes.append(cell.shape)
        self.cells = nn.ModuleList(cells)
        self.drop = ScheduledDropPath([cell.drop for cell in cells], drop_path)
        self.dropout = nn.Dropout(layout.dropout)
        self.classifier = nn.Linear(shapes[-1].channels, classes, bias=layout.classifier_bias)
        self.auxiliary_place = layout.auxiliary_place
        source = cells[self.auxiliary_place].shape
        self.auxiliary = AuxiliaryHead(kernels, source, classes) if auxiliary else None
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = layout.norm_epsilon, layout.norm_momentum

    @property
    def parameters_count(self) -> int:
        """Trainable parameters: convolutions, batch norm scales and shifts, classifiers."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and classifiers for one image, exactly."""
        return multiply_adds_of(self) + self.classifier.weight.numel()

    def arrange(self) -> None:
        """Lay weights in memory as the backend reads them fastest: with channels side by side."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.modules():
            if isinstance(module, SeparableHalf):
                module.arrange()

    def set_progress(self, progress: float | Tensor) -> None:
        """Set the share of the training that is done, in [0, 1], which drop-path's schedule follows.

        A result in cell i of n is kept with probability ``1 - drop_path * progress * (i + 1) / n``
        (docs/method.md, 3.3); a stem's cells count.
        """
        if isinstance(progress, Tensor):
            self.drop.progress.copy_(progress)
        else:
            self.drop.progress.fill_(progress)

    def share_drop_path(self, rank: int, size: int) -> None:
        """Draw drop-path's masks as for a batch of ``size`` equal parts, of which part ``rank`` is here.

        With the same state of the generators everywhere, the parts together see the masks that one
        network with the whole batch would.
        """
        self.drop.share = rank, size

    def forward(self, images: Tensor) -> Tensor | Logits:
        """Logits (batch, classes) of images (batch, C, H, W).

        While a network with an auxiliary classifier trains, both classifiers' `Logits`.
        """
        state, auxiliary = self._last_state(images)
        features = self.dropout(self._pooled(state))
        logits: Tensor = self.classifier(features.to(self.classifier.weight.dtype))
        return logits if auxiliary is None else Logits(logits, auxiliary)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier, by timm's name, as the four that follow."""
        return self.classifier.out_features

    @property
    def num_features(self) -> int:
        """Channels that the classifier reads."""
        return self.classifier.in_features

    def forward_features(self, images: Tensor) -> Tensor:
        """What is averaged for the classifier: (batch, `num_features`, H', W') of images (batch, C, H, W)."""
        state, _ = self._last_state(images)
        features = self.backend.materialise(state)
        return features.relu() if self.layout.final_rectify else features

    def get_classifier(self) -> nn.Linear:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a random classifier of so many outputs in the place of the last layer.

        Raises:
            ValueError: fewer than 1.
        """
        _check_sizes(self.layout.repeats, self.layout.filters, num_classes, self.image_shape)
        old = self.classifier
        self.classifier = nn.Linear(
            old.in_features,
            num_classes,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )

    def _last_state(self, images: Tensor) -> tuple[object, Tensor | None]:
        """The last cell's output, as the backend has it, and the auxiliary classifier's logits."""
        if self.training:
            self.drop.draw(len(images))
        stem = self.stem(images.contiguous(memory_format=torch.channels_last))
        states = list(stem) if isinstance(stem, tuple) else [stem]
        auxiliary = None
        for index, (cell, place) in enumerate(zip(self.cells, self.places, strict=True)):
            states = [*states[1 - LONGEST_REACH :], cell(states[-place.back :][0], states[-1])]
            if self.training and self.auxiliary is not None and index == self.auxiliary_place:
                auxiliary = self.auxiliary(states[-1])
        return states[-1], auxiliary

    def _pooled(self, state: object) -> Tensor:
        if self.layout.final_rectify:
            average: Tensor = self.backend.global_average(state)
            return average
        return self.backend.materialise(state).mean(dim=(2, 3))


def multiply_adds_of(part: nn.Module) -> int:
    """Multiply-adds of a part of a network for one image; the last classifier is in no part."""
    return sum(module.multiply_adds for module in part.modules() if isinstance(module, Layer))


def _check_sizes(repeats: int, filters: int, classes: int, image_shape: Sequence[int]) -> None:
    for name, value in (("repeats", repeats), ("filters", filters), ("classes", classes)):
        if value < 1:
            raise ValueError(f"{name} is {value}, allowed is 1 or more")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape is {tuple(image_shape)}, allowed is (C, H, W), each 1 or more")
