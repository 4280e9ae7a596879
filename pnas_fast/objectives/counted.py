"""Parameters and multiply-adds of a deployed network, as tables that are exact."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from pnas_fast.network import ChildNetwork, multiply_adds_of
from pnas_fast.objectives.additive import INPUT_CLASSES, AdditiveCost
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Block, Cell

COUNTED = ("parameters", "multiply_adds")
"""The costs that `counted` gives."""

_PLAIN = Block(1, "identity", 1, "identity")


@lru_cache(maxsize=8)
def counted(deployment: Deployment) -> dict[str, AdditiveCost]:
    """``parameters`` and ``multiply_adds`` of cells in a deployed network, equal to those of a built one.

    Networks are built without memory and counted part by part: a side costs the same in every cell that has
    it, whatever else is in the cell, and all the rest follows from the number of blocks.

    Raises:
        ValueError: a network that cannot be built.
    """
    sides = np.array([_sides(deployment, source) for source in range(INPUT_CLASSES)])
    sizes = np.arange(1, MAX_BLOCKS + 1)
    whole = np.array([_whole(deployment, Cell((_PLAIN,) * blocks)) for blocks in sizes])
    of_sides = 2 * sizes[:, np.newaxis] * sides[_PLAIN.in1, OPERATIONS.index(_PLAIN.op1)]
    return {
        name: AdditiveCost(name, "", sides[..., index], (whole - of_sides)[:, index])
        for index, name in enumerate(COUNTED)
    }


def _whole(deployment: Deployment, cell: Cell) -> tuple[float, float]:
    network = _built(deployment, cell)
    return network.parameters_count, network.multiply_adds


def _sides(deployment: Deployment, source: int) -> list[tuple[float, float]]:
    """What each operation on an input adds to a network, over all of its cells."""
    first = (_PLAIN,) if source >= CELL_INPUTS else ()
    found = []
    for operation in OPERATIONS:
        cells = _built(deployment, Cell((*first, Block(source, operation, source, "identity")))).cells
        parts = [cell.get_submodule(f"blocks.{len(first)}.left") for cell in cells]
        found.append((float(sum(map(_parameters, parts))), float(sum(map(multiply_adds_of, parts)))))
    return found


def _built(deployment: Deployment, cell: Cell) -> ChildNetwork:
    shape, classes = deployment.image_shape, deployment.classes
    with torch.device("meta"):
        return ChildNetwork(cell, deployment.repeats, deployment.filters, classes, shape)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
