"""Memory: the most that a deployed network's activations take at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from pnas_fast.candidates import canonical_keys
from pnas_fast.network.layers import Shape
from pnas_fast.network.layout import Layout
from pnas_fast.objectives.additive import Floats
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.liveness import ALIGN, FIRST_NODE, REST, SHAPE, SUM, Kind, steps
from pnas_fast.protocols import Trial
from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Codes

MIB = 2**20
"""Bytes."""

BYTES = 4
"""Of an activation, float32."""

CHANNEL_BLOCK = 16
"""An exported convolution gives a multiple of so many channels (`pnas_fast.export.graph`)."""

STEM_CHANNELS = 3
"""Times F."""

_BATCH = 1 << 15
"""Cells at a time."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak activations in MiB of the network of a cell, as its export runs for the deployment's batch.

    It is a `pnas_fast.protocols.Cost`. Of cells of three blocks and more it is exactly what
    `pnas_fast.export.memory.peak_activations` finds in the exported graph with blocks in canonical order. Of
    smaller ones it is about that: where H[c-2] happens to have the channels of a block, the graph does not
    align it, which is not told apart here.
    """

    deployment: Deployment

    name: ClassVar[str] = "memory_mib"
    unit: ClassVar[str] = "MiB"
    maximise: ClassVar[bool] = False

    grows: ClassVar[bool] = True
    """A cell never takes less than what it was grown from: seen of all cells of two blocks and of many larger
    ones, but not proved, for blocks may come to run in another order."""

    def most(self, blocks: int, operations: Sequence[str]) -> float:
        """Somewhat more than a cell of up to ``blocks`` blocks of these operations takes.

        As though at one step as many tensors lived of everything as may of each.
        """
        codes = [OPERATIONS.index(name) for name in operations]
        sides = [source * len(OPERATIONS) + code for source in range(CELL_INPUTS + 1) for code in codes]
        works = [*(FIRST_NODE + side for side in sides), *(REST + side for side in sides), SUM, ALIGN]
        found = 0.0
        for count in range(1, blocks + 1):
            # Of i blocks that are done, so many may be needed in both forms as sides are still to come.
            live = 2 + max(done + min(done, 2 * (count - done)) for done in range(count))
            always, tables = _tables(self.deployment, count)
            steps = [table.reshape(SHAPE)[:, :, : live + 1, works].max() for table in tables.values()]
            found = max(found, always, *steps)
        return found / MIB

    def least(self, blocks: int, operations: Sequence[str]) -> float:
        """What every network of up to ``blocks`` blocks takes at some step, whatever its operations."""
        return min(_tables(self.deployment, count)[0] for count in range(1, blocks + 1)) / MIB

    def before(self, codes: Codes) -> Floats:
        """MiB float64 (M,) of cells int8 (M, b, 4), whatever the order of their blocks."""
        blocks = codes.shape[1]
        always, tables = _tables(self.deployment, blocks)
        peak = np.full(len(codes), always)
        for start in range(0, len(codes), _BATCH):
            part = peak[start : start + _BATCH]
            cells = canonical(codes[start : start + _BATCH])
            for kind, table in tables.items():
                for keys in steps(cells, kind):
                    np.maximum(part, table.take(keys), out=part)
        peak /= MIB
        return peak

    def of(self, trial: Trial) -> float:
        """That of a trial's cell, NaN where it failed."""
        return float(self.before(trial.cell.codes[np.newaxis])[0]) if trial.done else float("nan")


def canonical(codes: Codes) -> Codes:
    """Cells int8 (M, b, 4) with their blocks and sides in canonical order."""
    keys = canonical_keys(codes)
    rows = np.arange(MAX_BLOCKS - 1, MAX_BLOCKS - 1 - codes.shape[1], -1, dtype=np.uint64)[:, np.newaxis]
    shifts = 12 * rows + np.array([9, 6, 3, 0], np.uint64)
    found: Codes = ((keys[:, np.newaxis, np.newaxis] >> shifts) & np.uint64(7)).astype(np.int8)
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """A cell of the network, with bytes of what surrounds it.

    ``before`` and ``previous`` are the two outputs that it reads, ``block`` is a block's shape.
    """

    kind: Kind
    last: bool
    before: Shape
    previous: Shape
    block: Shape
    batch: int

    def bytes(self, shape: Shape) -> int:
        return BYTES * self.batch * shape.channels * shape.height * shape.width

    @property
    def aligned(self) -> tuple[Shape, Shape, Shape]:
        """What each class of input is."""
        whole = self.previous._replace(channels=self.block.channels)
        return (self.before if self.kind is Kind.FIRST else whole), whole, self.block

    def always(self, blocks: int) -> int:
        """The most bytes at steps that are the same for all cells of so many blocks."""
        output = self.bytes(self.block._replace(channels=blocks * self.block.channels))
        outside = self.bytes(self.previous)
        concatenation = 2 * output if blocks > 1 else output
        pooled = output + BYTES * self.batch * blocks * self.block.channels if self.last else 0
        return max(concatenation + (0 if self.last else outside), pooled, self._alignment())

    def _alignment(self) -> int:
        """Of H[c-2]: a 1×1 convolution, or where the map halves two, of which one reads a copy."""
        if self.kind is Kind.FIRST:
            return 0
        outside, before, result = map(self.bytes, (self.previous, self.before, self.aligned[0]))
        if self.before[1:] == self.previous[1:]:
            return outside + before + result
        moved = self.bytes(self.previous._replace(channels=self.before.channels))
        return outside + moved + result + max(before, result)

    def table(self) -> Floats:
        """Bytes of every step, float64 of `SHAPE`."""
        sizes = [self.bytes(shape) for shape in self.aligned]
        outside = self.bytes(self.previous)
        works = np.zeros(SHAPE[3])
        for source in range(CELL_INPUTS + 1):
            for code, name in enumerate(OPERATIONS):
                side = source * len(OPERATIONS) + code
                works[FIRST_NODE + side], works[REST + side] = self._side(name, source)
        works[SUM] = sizes[2]
        works[ALIGN] = sizes[1] + (outside if self.last else 0)
        counts = np.ogrid[tuple(slice(count) for count in SHAPE[:3])]
        live = counts[0] * sizes[0] + counts[1] * sizes[1] + counts[2] * sizes[2]
        table: Floats = (0 if self.last else outside) + live[..., np.newaxis] + works
        return table

    def _side(self, name: str, source: int) -> tuple[int, int]:
        """Bytes that an operation adds at its first node, and at most at others."""
        given, block = self.aligned[source], self.bytes(self.block)
        moved = self.bytes(self.block._replace(channels=given.channels))
        if name == "identity":
            return (0, 0) if source not in self.kind.value else (block, block)
        if "pool" in name:
            return moved, moved + (block if given.channels != self.block.channels else 0)
        if name == "conv1x7_7x1":
            row = self.bytes(given._replace(width=self.block.width))
            return row, row + block
        return moved, moved + block if name.startswith("dil") else max(moved, block) + block


@lru_cache(maxsize=32)
def _tables(deployment: Deployment, blocks: int) -> tuple[float, dict[Kind, Floats]]:
    """The bytes that every network takes at some step, and for each kind of cell the most of a step."""
    channels, height, width = deployment.image_shape
    images = BYTES * deployment.batch * channels * height * width
    stem = BYTES * deployment.batch * _whole(STEM_CHANNELS * deployment.filters) * height * width
    always, tables = images + stem, dict[Kind, Floats]()
    for place in _places(deployment, blocks):
        always = max(always, place.always(blocks))
        table = place.table()
        tables[place.kind] = np.maximum(tables[place.kind], table) if place.kind in tables else table
    return float(always), {kind: table.ravel() for kind, table in tables.items()}


def _places(deployment: Deployment, blocks: int) -> Iterator[_Place]:
    _, height, width = deployment.image_shape
    stem = Shape(_whole(STEM_CHANNELS * deployment.filters), height, width)
    outputs = [stem, stem]
    places = Layout(repeats=deployment.repeats, filters=deployment.filters).places()
    for index, place in enumerate(places):
        before, previous = outputs[-2:]
        block = previous.strided(_whole(place.filters), 2 if place.reduction else 1)
        kind = Kind.REDUCTION if place.reduction else Kind.FIRST if index == 0 else Kind.NORMAL
        yield _Place(kind, index == len(places) - 1, before, previous, block, deployment.batch)
        outputs.append(block._replace(channels=blocks * block.channels))


def _whole(channels: int) -> int:
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK
