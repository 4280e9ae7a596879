"""The kernels of CUDA devices behind `pnas_fast.kernels.fused.Primitives`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pnas_fast.kernels.activation import Accumulator
from pnas_fast.kernels.backend import BackendError
from pnas_fast.kernels.fused import Convolution, Gradients, Normal, Pooled, Result, Source
from pnas_fast.kernels.triton import norm as norms
from pnas_fast.kernels.triton.add import add
from pnas_fast.kernels.triton.add_backward import add_backward
from pnas_fast.kernels.triton.average import global_average, global_average_backward
from pnas_fast.kernels.triton.dense import dense
from pnas_fast.kernels.triton.dense_backward import dense_backward
from pnas_fast.kernels.triton.launch import INTERPRETED, is_nhwc, is_recording
from pnas_fast.kernels.triton.pointwise_backward import pointwise_backward, serves
from pnas_fast.kernels.triton.separable import separable
from pnas_fast.kernels.triton.separable_backward import separable_backward

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST = 2**31 - 1
"""Elements that an activation may span: offsets are 32-bit."""


class TritonPrimitives:
    """Every operation one launch, forward and backward; see the files of the operations.

    Activations are fp32, bf16 or fp16, in NHWC memory; sums, statistics and weights are fp32. Products of
    fp32 are taken as three tf32 products. Results are the same to the bit on the same card.
    """

    name = "triton"

    def check(self, x: Tensor) -> None:
        """See `pnas_fast.kernels.fused.Primitives.check`."""
        device = "cpu" if INTERPRETED or is_recording() else "cuda"
        if x.device.type != device:
            raise BackendError(f"backend triton reads an activation on {x.device}: allowed is {device}")
        if x.dtype not in DTYPES:
            raise BackendError(
                f"backend triton reads an activation of {x.dtype}: allowed are "
                + " ".join(str(dtype) for dtype in DTYPES)
            )
        if not is_nhwc(x):
            raise BackendError(
                f"backend triton reads an activation of strides {x.stride()}: allowed is NHWC memory "
                "(torch.channels_last)"
            )
        if x.numel() > LARGEST:
            raise BackendError(
                f"backend triton reads an activation of {x.numel():,} elements: allowed are {LARGEST:,}"
            )

    def convolution(
        self,
        convolution: Convolution,
        source: Source,
        weights: tuple[Tensor, ...],
        norm: nn.BatchNorm2d | None,
        out: Tensor,
    ) -> Normal | None:
        """See `pnas_fast.kernels.fused.Primitives.convolution`."""
        if norm is not None:
            norms.check_norm(norm, out.numel() // out.shape[1])
        if convolution.kind == "separable":
            assert norm is not None
            return separable(convolution, source, weights, norm, out)
        return dense(convolution, source, weights, norm, out)

    def convolution_backward(
        self,
        convolution: Convolution,
        source: Source,
        weights: tuple[Tensor, ...],
        result: Result,
        into: Accumulator | None,
    ) -> Gradients:
        """See `pnas_fast.kernels.fused.Primitives.convolution_backward`."""
        if not is_nhwc(result.g):
            result = result._replace(g=result.g.contiguous(memory_format=torch.channels_last))
        if convolution.kind == "separable":
            return separable_backward(convolution, source, weights, result, into)
        if into is not None and serves(convolution, source.z, result.z.shape[1]):
            return pointwise_backward(convolution, source, weights[0], result, into)
        return dense_backward(convolution, source, weights, result, into)

    def add(self, left: Pooled, right: Pooled | None, out: Tensor) -> None:
        """See `pnas_fast.kernels.fused.Primitives.add`."""
        add(left, right, out)

    def add_backward(self, side: Pooled, g: Tensor, into: Accumulator) -> None:
        """See `pnas_fast.kernels.fused.Primitives.add_backward`."""
        add_backward(side, g, into)

    def global_average(self, source: Source, out: Tensor) -> None:
        """See `pnas_fast.kernels.fused.Primitives.global_average`."""
        global_average(source, out)

    def global_average_backward(self, source: Source, g: Tensor, into: Accumulator) -> None:
        """See `pnas_fast.kernels.fused.Primitives.global_average_backward`."""
        global_average_backward(source, g, into)
