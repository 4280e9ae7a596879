"""A cell as a module: its inputs brought to F channels, its blocks, their concatenation (SPEC 1.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pnas_fast.kernels import Backend, CellOutput, Side, State
from pnas_fast.network.layers import Convolution, FactorizedReduction, Shape
from pnas_fast.network.operations import build_operation
from pnas_fast.space import CELL_INPUTS, Block, Cell


class DropPath:
    """The probability with which a block keeps an operation's result, and the masks drawn from it."""

    def __init__(self) -> None:
        self.keep = 1.0

    def mask(self, state: State) -> Tensor | None:
        """A multiplier per image, 0 or 1 / keep; None where everything is kept."""
        if self.keep >= 1.0:
            return None
        mask = torch.empty((state.shape[0], 1, 1, 1), device=state.device, dtype=state.dtype)
        return mask.bernoulli_(self.keep).div_(self.keep)


class BlockModule(nn.Module):
    """Two operations and their sum."""

    def __init__(
        self,
        block: Block,
        backend: Backend[State],
        sources: list[Shape],
        filters: int,
        stride: int,
        drop: DropPath,
    ) -> None:
        super().__init__()
        self.backend = backend
        self.block = block
        self.drop = drop
        self.left, self.right = (
            build_operation(
                operation, backend, sources[source], filters, stride if source < CELL_INPUTS else 1
            )
            for source, operation in block.sides
        )

    def forward(self, states: list[State], output: CellOutput) -> State:
        """The block's output, from the cell's inputs and earlier blocks, in its place in the cell's."""
        left = self._kept(self.left(states[self.block.in1]), self.block.op1)
        right = self._kept(self.right(states[self.block.in2]), self.block.op2)
        return self.backend.add(left, right, output, len(states) - CELL_INPUTS)

    def _kept(self, side: Side[State], operation: str) -> Side[State]:
        # Identities are never dropped, not even in their 1×1 form (SPEC 3.3).
        if not self.training or operation == "identity":
            return side
        return side._replace(keep=self.drop.mask(side.state))


class CellModule(nn.Module):
    """One cell of a network.

    Args:
        cell: its blocks.
        backend: does the arithmetic.
        before: shape of H[c-2], the cell before the previous one.
        previous: shape of H[c-1], the previous cell.
        filters: channels of each block.
        stride: 1, or 2 for a cell that halves the map.
        first: the cell right after the stem reads the stem's raw output as its H[c-2].

    Attributes:
        shape: of the output, ``len(cell) * filters`` channels.
        drop: the drop-path probability shared by its blocks.
    """

    def __init__(
        self,
        cell: Cell,
        backend: Backend[State],
        before: Shape,
        previous: Shape,
        filters: int,
        *,
        stride: int,
        first: bool,
    ) -> None:
        super().__init__()
        self.backend = backend
        self.drop = DropPath()
        self.align_before = None if first else _align_before(backend, before, previous, filters)
        self.align_previous = Convolution(backend, previous, filters)
        block_shape = previous.strided(filters, stride)
        before = before if self.align_before is None else self.align_before.shape
        sources = [before, self.align_previous.shape] + [block_shape] * (len(cell) - 1)
        self.blocks = nn.ModuleList(
            BlockModule(block, backend, sources, filters, stride, self.drop) for block in cell.blocks
        )
        self.shape = block_shape._replace(channels=filters * len(cell))

    def forward(self, before: State, previous: State) -> State:
        """H[c-2] and H[c-1] to H[c]."""
        states = [
            before if self.align_before is None else self.align_before(before),
            self.align_previous(previous),
        ]
        output = CellOutput(len(self.blocks))
        for block in self.blocks:
            states.append(block(states, output))
        return self.backend.concatenate(states[CELL_INPUTS:], output)


def _align_before(
    backend: Backend[State], before: Shape, previous: Shape, filters: int
) -> Convolution | FactorizedReduction | None:
    """Bring H[c-2] to the size of H[c-1] and to F channels; None where it fits as it is."""
    if (before.height, before.width) != (previous.height, previous.width):
        return FactorizedReduction(backend, before, filters)
    if before.channels != filters:
        return Convolution(backend, before, filters)
    return None
