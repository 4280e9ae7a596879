"""A cell as a module: alignment of its inputs to F channels, its blocks, their concatenation.

See docs/method.md, 1.3.
"""

from __future__ import annotations

from torch import nn

from pnas_fast.kernels import Backend, CellOutput, Side, State
from pnas_fast.kernels.branches import Branches, streams_to_capture
from pnas_fast.network.drop_path import DropPath
from pnas_fast.network.genotype import Wiring
from pnas_fast.network.layers import Convolution, FactorizedReduction, Shape
from pnas_fast.network.layout import Layout, Place
from pnas_fast.network.operations import NEVER_DROPPED, build_operation
from pnas_fast.space import CELL_INPUTS, Block


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
        self.inputs = block.in1, block.in2
        self.drop = drop
        self.places = [
            None if operation in NEVER_DROPPED else drop.new_place() for _, operation in block.sides
        ]
        self.left, self.right = (
            build_operation(
                operation, backend, sources[source], filters, stride if source < CELL_INPUTS else 1
            )
            for source, operation in block.sides
        )

    def forward(self, states: list[State], output: CellOutput, place: int) -> State:
        """The block's output, from the cell's inputs and earlier blocks, at an index of the cell's output."""
        left = self._kept(self.left(states[self.inputs[0]]), self.places[0])
        right = self._kept(self.right(states[self.inputs[1]]), self.places[1])
        return self.backend.add(left, right, output, place)

    def _kept(self, side: Side[State], place: int | None) -> Side[State]:
        if not self.training or place is None:
            return side
        return side._replace(keep=self.drop.mask(place, side.state))


class CellModule(nn.Module):
    """One cell of a network.

    Args:
        wiring: its blocks and which states leave it.
        backend: does the arithmetic.
        before: shape of H[c-2], the cell before the previous one.
        previous: shape of H[c-1], the previous cell.
        place: its filters and whether it halves the map.
        layout: of the network; says how the inputs are brought to F channels.
        first: the cell right after the stem may read the stem's raw output as its H[c-2].

    Attributes:
        shape: of the output, as many times ``place.filters`` channels as states leave the cell.
        drop: the drop-path masks of its blocks.
    """

    def __init__(
        self,
        wiring: Wiring,
        backend: Backend[State],
        before: Shape,
        previous: Shape,
        place: Place,
        layout: Layout,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        self.backend = backend
        self.outputs = wiring.outputs
        self.drop = DropPath()
        filters, stride = place.filters, 2 if place.reduction else 1
        raw = first and not layout.always_align
        self.align_before = None if raw else _align_before(backend, before, previous, filters, layout)
        self.align_previous = _align_previous(backend, previous, filters, layout.previous_projections)
        block_shape = previous.strided(filters, stride)
        before = before if self.align_before is None else self.align_before.shape
        sources = [before, previous._replace(channels=filters)] + [block_shape] * (len(wiring.blocks) - 1)
        self.blocks = nn.ModuleList(
            BlockModule(block, backend, sources, filters, stride, self.drop) for block in wiring.blocks
        )
        self.align_outputs = nn.ModuleDict(
            {
                str(state): module
                for state in wiring.outputs
                if state < CELL_INPUTS and (module := _align_output(backend, sources[state], block_shape))
            }
        )
        self.shape = block_shape._replace(channels=filters * len(wiring.outputs))

    def forward(self, before: State, previous: State) -> State:
        """H[c-2] and H[c-1] to H[c]."""
        states = [
            before if self.align_before is None else self.align_before(before),
            self.align_previous(previous),
        ]
        output = CellOutput(len(self.outputs))
        branches = Branches(streams_to_capture() if self.backend.branches else None)
        for index, block in enumerate(self.blocks, CELL_INPUTS):
            # A block that does not leave the cell has memory of its own.
            place = (output, self.outputs.index(index)) if index in self.outputs else (CellOutput(1), 0)
            assert isinstance(block, BlockModule)
            reads = [states[state] for state in block.inputs]
            earlier = [state for state in block.inputs if state >= CELL_INPUTS]
            with branches.branch(index, reads, after=earlier):
                states.append(block(states, *place))
        branches.join(states[CELL_INPUTS:])
        parts = [
            self._output(states[state], state, output, place) for place, state in enumerate(self.outputs)
        ]
        return self.backend.concatenate(parts, output)

    def _output(self, value: State, state: int, output: CellOutput, place: int) -> State:
        """A state in its slot of the cell's output: blocks wrote theirs, cell inputs are copied there."""
        if state >= CELL_INPUTS:
            return value
        name = str(state)
        if name in self.align_outputs:
            value = self.align_outputs[name](value)
        return self.backend.add(Side(value), None, output, place)


def _align_before(
    backend: Backend[State], before: Shape, previous: Shape, filters: int, layout: Layout
) -> Convolution | FactorizedReduction | None:
    """What brings H[c-2] to the size of H[c-1] and to F channels; None where it fits as it is."""
    if (before.height, before.width) != (previous.height, previous.width):
        return FactorizedReduction(backend, before, filters)
    if before.channels != filters or layout.always_align:
        return Convolution(backend, before, filters)
    return None


def _align_previous(
    backend: Backend[State], previous: Shape, filters: int, projections: int
) -> Convolution | nn.Sequential:
    """What brings H[c-1] to F channels."""
    first = Convolution(backend, previous, filters)
    again = [Convolution(backend, first.shape, filters) for _ in range(projections - 1)]
    return nn.Sequential(first, *again) if again else first


def _align_output(
    backend: Backend[State], source: Shape, target: Shape
) -> Convolution | FactorizedReduction | None:
    """What brings a cell input that leaves the cell to the shape of a block, without a ReLU (as in slim)."""
    if source.height != target.height or source.width != target.width:
        return FactorizedReduction(backend, source, target.channels, rectify=False)
    if source.channels != target.channels:
        return Convolution(backend, source, target.channels, rectify=False)
    return None
