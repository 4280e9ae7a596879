"""Cells for tests."""

import random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from torch import nn

from pnas_fast.search.preflight import random_cell
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell

PNASNET5 = (
    "0:sep5x5+0:max_pool3x3,1:sep7x7+1:max_pool3x3,1:sep5x5+1:sep3x3,"
    "4:sep3x3+1:max_pool3x3,0:sep3x3+1:identity"
)


@st.composite
def cells(draw: st.DrawFn, max_blocks: int = MAX_BLOCKS, operations: int = len(OPERATIONS)) -> Cell:
    count = draw(st.integers(1, max_blocks))
    rows = [
        [draw(st.integers(0, (1 + index if side % 2 == 0 else operations - 1))) for side in range(4)]
        for index in range(count)
    ]
    return Cell.from_codes(np.array(rows))


def random_cells(level: int, number: int, generator: random.Random) -> list[str]:
    """Texts of so many different cells."""
    found: dict[str, None] = {}
    while len(found) < number:
        found[str(random_cell(level, OPERATIONS, generator))] = None
    return list(found)


def cells_of(network: nn.Module) -> list[Any]:
    """The cells of a network, without PyTorch's doubt whether what a module holds is a tensor."""
    return list(network.get_submodule("cells").children())
