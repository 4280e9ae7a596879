"""What flows between fused operations: values whose batch norm is applied by whoever reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pnas_fast.kernels._torch_internals import current_pass


class Accumulator(NamedTuple):
    """Where a reader puts its share of a source's gradient.

    ``z`` is (N, C, H, W) in NHWC memory, perhaps a slice of a wider tensor; ``affine`` is (2, C), the
    gradients of scale and shift, None where the source has none. With ``accumulate`` both are added to,
    else written.
    """

    z: Tensor
    affine: Tensor | None
    accumulate: bool


class GradientSink:
    """One gradient shared by all readers of an activation.

    Autograd would add up a tensor of its own for each reader. Here the first reader of a backward pass
    makes the tensor and hands it to autograd; the others add to it in place and hand over nothing.
    A reader that is alone may hand over a gradient that is not its own, still to be multiplied by the
    activation's scale, where whatever made the activation can do that.

    Attributes:
        readers: operations that read the activation, counted as they run.
        multiplies: whether the backward of what made it multiplies by its scale.
    """

    # A run of backward has a number: what an earlier one left behind, having failed, must not count.
    __slots__ = ("_affine", "_pass", "_pending", "_z", "multiplies", "readers")

    def __init__(self) -> None:
        self.readers = 0
        self.multiplies = False
        self._z: Tensor | None = None
        self._affine: Tensor | None = None
        self._pending = False
        self._pass = -1

    def put(self, z: Tensor) -> None:
        """Begin with a gradient that is already there."""
        self._z, self._affine, self._pending, self._pass = z, None, False, current_pass()

    def put_pending(self, z: Tensor) -> None:
        """End with a gradient that has yet to be multiplied by the activation's scale."""
        self.put(z)
        self._pending = True

    def claim(self, z: Tensor, affine: Tensor | None) -> Accumulator:
        """Room for a share of the gradient of ``z`` and of its scale and shift."""
        if self._z is not None and self._pass == current_pass():
            assert not self._pending, "a gradient that is not its own was handed over by the only reader"
            return Accumulator(self._z, self._affine, accumulate=True)
        fresh = new_gradient(z, affine)
        self._z, self._affine, self._pending, self._pass = fresh.z, fresh.affine, False, current_pass()
        return fresh

    def holds(self, gradient: Tensor) -> bool:
        """Whether a gradient that autograd hands over is the shared one, complete by now."""
        return self._z is not None and self._z.data_ptr() == gradient.data_ptr()

    def is_pending(self) -> bool:
        """Whether the gradient of this pass has yet to be multiplied by the activation's scale."""
        return self._z is not None and self._pending and self._pass == current_pass()

    def clear(self) -> None:
        """Let go of the gradient: its activation's own backward has it now."""
        self._z = self._affine = None


def new_gradient(z: Tensor, affine: Tensor | None) -> Accumulator:
    """Room of its own for a source's gradient."""
    own = torch.empty_like(z, memory_format=torch.channels_last)
    return Accumulator(own, None if affine is None else torch.empty_like(affine), accumulate=False)


@dataclass(slots=True)
class Activation:
    """An activation as a fused operation leaves it.

    Its value is ``scale * z + shift`` with ``affine = (scale, shift)`` of shape (2, C), or z itself.
    ``z`` is (N, C, H, W) in NHWC memory, perhaps a slice of a wider tensor.
    """

    z: Tensor
    affine: Tensor | None = None
    sink: GradientSink = field(default_factory=GradientSink)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return self.z.shape

    @property
    def device(self) -> torch.device:
        """Where its values are."""
        return self.z.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its values."""
        return self.z.dtype
