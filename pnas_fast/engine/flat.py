"""Parameters side by side in memory, so that an update of all of them is an update of one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pnas_fast.kernels.layout import is_dense

ALIGN = 4
"""Elements, 16 bytes, at whose multiples tensors begin: as wide as kernels load."""

PIECES = 32
"""Of an update: PyTorch takes 48 tensors in a launch, and gives 65,536 elements of one to one processor."""


class Flat:
    """One piece of memory for tensors of one type on one device, each laid out in it as it was.

    Between them are zeros, up to the next multiple of `ALIGN` elements.

    Args:
        like: tensors that say how many, how large and how laid out.

    Attributes:
        memory: all of them, of one dimension; zeros.
        views: each of them.
        starts: of each, in elements, and where the last ends.

    Raises:
        ValueError: there is a gap within a tensor, or an element that it has twice.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        self.starts = [0]
        for tensor in like:
            if not is_dense(tensor):
                found = f"{tuple(tensor.shape)} with strides {tensor.stride()}"
                raise ValueError(f"optimiser: a parameter is {found}, allowed is one without gaps")
            self.starts.append(self.starts[-1] + -(-tensor.numel() // ALIGN) * ALIGN)
        self.memory = like[0].detach().new_zeros(self.starts[-1])
        self.views = [
            self.memory.as_strided(tensor.shape, tensor.stride(), start)
            for tensor, start in zip(like, self.starts[:-1], strict=True)
        ]
        self._zeros = like[0].detach().new_zeros(max(tensor.numel() for tensor in like) + ALIGN)

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Copy values of tensors here, in their order."""
        for tensor, view in zip(tensors, self.views, strict=True):
            view.copy_(tensor.detach())

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the views: at the same addresses, laid out alike."""
        return len(tensors) == len(self.views) and all(
            tensor.data_ptr() == view.data_ptr() and _lies_as(tensor, view)
            for tensor, view in zip(tensors, self.views, strict=True)
        )

    def gathered(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """A copy of other tensors as `memory` is laid out, zeros for None: a launch for some hundred of them.

        Raises:
            ValueError: one is laid out otherwise than its view.
        """
        pieces = []
        for tensor, view in zip(tensors, self.views, strict=True):
            size, gap = view.numel(), -view.numel() % ALIGN
            if tensor is None:
                pieces.append(self._zeros[: size + gap])
                continue
            if not _lies_as(tensor, view):
                found = f"{tuple(tensor.shape)} with strides {tensor.stride()}"
                allowed = f"{tuple(view.shape)} with strides {view.stride()}, as the parameter is"
                raise ValueError(f"optimiser: a gradient is {found}, allowed is {allowed}")
            pieces.append(tensor.as_strided((size,), (1,)))
            if gap:
                pieces.append(self._zeros[:gap])
        return torch.cat(pieces)

    def runs(self, tensors: Sequence[Tensor | None], first: int, end: int) -> list[slice]:
        """Where in `memory` those of tensors [first, end) are that are not None, in some `PIECES` pieces."""
        runs: list[slice] = []
        for index in range(first, end):
            if tensors[index] is None:
                continue
            begin, after = self.starts[index : index + 2]
            if runs and runs[-1].stop == begin:
                begin = runs.pop().start
            runs.append(slice(begin, after))
        length = -(-sum(run.stop - run.start for run in runs) // (PIECES * ALIGN)) * ALIGN
        return [
            slice(begin, min(begin + length, run.stop))
            for run in runs
            for begin in range(run.start, run.stop, length)
        ]


def _lies_as(tensor: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape, and strides where there is any use for one."""
    steps = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
    return tensor.shape == other.shape and all(by == its for size, by, its in steps if size > 1)
