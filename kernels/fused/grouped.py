"""`Backend` in terms of fused kernels that do several operations in one launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pnas_fast.kernels._torch_internals import between_graphs
from pnas_fast.kernels.activation import Activation
from pnas_fast.kernels.backend import CellOutput, Side
from pnas_fast.kernels.fused.backend import Fused, FusedBackend
from pnas_fast.kernels.fused.functions import filters, new_output
from pnas_fast.kernels.fused.lazy import Add, Convolve, Deferred, compute
from pnas_fast.kernels.fused.primitives import Convolution


class GroupedBackend(FusedBackend):
    """Fused operations on one device's kernels, those of one cell that are alike in one launch.

    Operations wait until somebody needs a result, the next cell by way of the concatenation of this
    one's blocks: results are `Deferred`, and `materialise`, `global_average` and `concatenate` run what
    theirs waits for. What nobody needs is never computed, nor do the statistics of its batch norm move.
    Graph compilers run these methods as they are, between what they compile.
    """

    records = False
    warms = True

    def arrange(self, depthwise: Tensor) -> Tensor:
        """See `Backend.arrange`: as (k, k, C), tap after tap."""
        return depthwise.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)

    convolution = between_graphs(FusedBackend.convolution)
    separable = between_graphs(FusedBackend.separable)
    factorized_reduction = between_graphs(FusedBackend.factorized_reduction)
    pool = between_graphs(FusedBackend.pool)
    add = between_graphs(FusedBackend.add)

    @between_graphs
    def compute(self, states: Sequence[Fused]) -> None:
        """Run what these states wait for, and what that waits for."""
        compute(self._kernels, states)

    @between_graphs
    def concatenate(self, states: list[Fused], output: CellOutput) -> Fused:
        """See `Backend.concatenate`."""
        self._arguments.concatenate(states, output)
        compute(self._kernels, states)
        return super().concatenate(states, output)

    @between_graphs
    def global_average(self, x: Fused) -> Tensor:
        """See `Backend.global_average`."""
        self._arguments.state(x)
        compute(self._kernels, [x])
        return super().global_average(x)

    @between_graphs
    def materialise(self, x: Fused) -> Tensor:
        """See `Backend.materialise`."""
        self._arguments.state(x)
        state = self._add([Side(x)], None)
        compute(self._kernels, [state])
        return state.z

    def _convolve(
        self, x: Fused, convolution: Convolution, norm: nn.BatchNorm2d | None, *weights: Tensor
    ) -> Activation:
        (n, _, h, w), (down, right) = x.shape, convolution.stride
        state = Deferred((n, filters(convolution, weights), -(-h // down), -(-w // right)), x)
        state.operation = Convolve(state, x, convolution, norm, weights)
        return state

    def _add(self, sides: list[Side[Fused]], out: Tensor | None) -> Activation:
        if out is None:
            source, stride = sides[0].state, sides[0].stride
            out = new_output(source, source.shape[1], (stride, stride))
        state = Deferred(out.shape, out)
        state.operation = Add(state, tuple(sides), out)
        return state
