"""The published tables, computed anew: what each network has, beside what was published."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pnas_fast.network import CellNetwork
from pnas_fast.zoo.models import MODELS, UNDEFINED, Model, Published


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        name: for `create_model`; empty where the network cannot be built.
        title: in the literature.
        parameters: computed; None where the network cannot be built.
        multiply_adds: computed, for one image.
        published: what to compare with.
        tolerance: how far computed figures may be from published ones.
    """

    name: str
    title: str
    parameters: int | None
    multiply_adds: int | None
    published: Published
    tolerance: float

    @property
    def differences(self) -> tuple[float | None, float | None]:
        """Computed over published, minus 1, of parameters and multiply-adds; None without both."""
        return (
            _difference(self.parameters, self.published.parameters),
            _difference(self.multiply_adds, self.published.multiply_adds),
        )

    @property
    def outside(self) -> bool:
        """Whether a figure is further from the published one than it may be."""
        return any(abs(found) > self.tolerance for found in self.differences if found is not None)

    @property
    def fails(self) -> bool:
        """Whether a figure is too far off and no reason is known."""
        return self.outside and not self.published.mismatch


def rows() -> list[Row]:
    """Every published network; counted without memory for its weights."""
    built = [_row(name, model) for name, model in MODELS.items()]
    return built + [Row("", title, None, None, published, 0.0) for title, published in UNDEFINED.items()]


def _row(name: str, model: Model) -> Row:
    with torch.device("meta"):
        network = CellNetwork(
            model.genotype, model.layout, model.classes, (3, model.image_size, model.image_size)
        )
    counts = network.parameters_count, network.multiply_adds
    return Row(name, model.title, *counts, model.published, model.tolerance)


def _difference(found: int | None, millions: float | None) -> float | None:
    return None if found is None or millions is None else found / (millions * 1e6) - 1
