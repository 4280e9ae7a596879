"""Scheduled drop-path: operations' results set to zero at random, per image (docs/method.md, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pnas_fast.kernels import State


class DropPath:
    """The masks of one cell's operations, a row for each of them."""

    def __init__(self) -> None:
        self.places = 0
        self.masks: Tensor | None = None

    def new_place(self) -> int:
        """The index of a new row, for another operation."""
        self.places += 1
        return self.places - 1

    def mask(self, place: int, state: State) -> Tensor | None:
        """A multiplier per image, (N, 1, 1, 1); None where none have been drawn."""
        if self.masks is None:
            return None
        return self.masks[place].to(state.dtype).view(-1, 1, 1, 1)


class ScheduledDropPath(nn.Module):
    """The masks of a network's cells, drawn all at once for a batch.

    The probability of keeping an operation's result in cell i of n is ``1 - probability * progress *
    (i + 1) / n``; what is kept is divided by it. It is worked out on the network's device, so a CUDA
    graph that holds the draw follows the progress.

    Args:
        cells: of the network, in order.
        probability: the largest of dropping a result.
    """

    def __init__(self, cells: Sequence[DropPath], probability: float) -> None:
        super().__init__()
        self._cells = cells
        self.probability = probability
        depth = [index / len(cells) for index, drop in enumerate(cells, 1) for _ in range(drop.places)]
        # Not part of a network's weights.
        self.register_buffer("depth", torch.tensor(depth)[:, None], persistent=False)
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.depth: Tensor
        self.progress: Tensor
        self.generator: torch.Generator | None = None
        """Of the masks, on the network's device; None is the device's own, which all networks share."""
        self.share = 0, 1
        """Which part of the batch is here, and of how many: masks are drawn for the whole batch."""

    def keep(self) -> Tensor:
        """The probability of keeping each operation's result, (operations, 1)."""
        return 1.0 - self.probability * self.progress * self.depth

    def draw(self, images: int) -> None:
        """Draw masks for this part's images of a batch; none where nothing is ever dropped."""
        if self.probability == 0.0:
            return
        (rank, size), keep = self.share, self.keep()
        uniform = torch.rand(len(keep), size * images, device=keep.device, generator=self.generator)
        kept = uniform[:, rank * images : (rank + 1) * images] < keep
        parts = torch.split(kept / keep, [drop.places for drop in self._cells])
        for drop, part in zip(self._cells, parts, strict=True):
            drop.masks = part
