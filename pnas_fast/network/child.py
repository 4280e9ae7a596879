"""The child network that a search trains to judge a cell (docs/method.md, 2 and 3.2, CIFAR layout)."""

from __future__ import annotations

from collections.abc import Sequence

from pnas_fast.network.genotype import Genotype
from pnas_fast.network.layout import Layout
from pnas_fast.network.network import CellNetwork
from pnas_fast.space import Cell


class ChildNetwork(CellNetwork):
    """The `CellNetwork` of one cell in the CIFAR layout: stem, 3N cells, global pooling, classifier.

    The stem is a 3×3 convolution to 3F channels with batch norm and no ReLU. Cells N and 2N (counted
    from 0) have stride 2 and double the filters. The head is ReLU, global average pool, linear.

    Args:
        cell: the cell that every layer repeats.
        repeats: N.
        filters: F, channels of a block in the first cells.
        classes: outputs.
        image_shape: (C, H, W) of the input images; any size.
        backend: a name in `pnas_fast.kernels.BACKENDS`.
        drop_path: largest probability of dropping an operation's result while training.
        auxiliary: whether there is an auxiliary classifier.

    Raises:
        ValueError: as `CellNetwork`.
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
        auxiliary: bool = False,
    ) -> None:
        layout = Layout(repeats=repeats, filters=filters)
        super().__init__(
            Genotype.of(cell),
            layout,
            classes,
            image_shape,
            backend=backend,
            drop_path=drop_path,
            auxiliary=auxiliary,
        )
