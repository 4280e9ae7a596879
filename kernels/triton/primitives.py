"""The kernels of CUDA devices behind `pnas_fast.kernels.fused.Primitives`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from pnas_fast.kernels.activation import Accumulator, Activation
from pnas_fast.kernels.arguments import DEPTHWISE, LARGEST, TAPS, Limits
from pnas_fast.kernels.fused import Convolution, Gradients, Normal, Source
from pnas_fast.kernels.fused.lazy import Deferred
from pnas_fast.kernels.fused.primitives import Backward, Forward, Sum, SumBackward
from pnas_fast.kernels.layout import pixel
from pnas_fast.kernels.triton import DTYPES
from pnas_fast.kernels.triton.add import add
from pnas_fast.kernels.triton.add_backward import add_backward, launches
from pnas_fast.kernels.triton.average import global_average, global_average_backward
from pnas_fast.kernels.triton.dense import dense
from pnas_fast.kernels.triton.dense_backward import dense_backward
from pnas_fast.kernels.triton.launch import INTERPRETED, is_recording
from pnas_fast.kernels.triton.pointwise_backward import pointwise_backward, serves
from pnas_fast.kernels.triton.problems import alike
from pnas_fast.kernels.triton.separable import separable
from pnas_fast.kernels.triton.separable_backward import separable_backward


def _device() -> str | None:
    """What tensors must be on; what is only recorded is read nowhere."""
    if is_recording():
        return None
    return "cpu" if INTERPRETED else "cuda"


class TritonPrimitives:
    """Every operation one launch, forward and backward, or two that are alike in one; see their files.

    Activations are fp32, bf16 or fp16, in NHWC memory; sums, statistics and weights are fp32. Products of
    fp32 are taken as three tf32 products. Results are the same to the bit on the same card.
    """

    name = "triton"
    dtypes: tuple[torch.dtype, ...] = DTYPES
    multiplies: frozenset[str] = frozenset({"separable"})
    limits = Limits(
        "triton",
        activations=DTYPES,
        weights=(torch.float32,),
        states=(Activation, Deferred),
        device=_device,
        compiled=True,
        elements=LARGEST,
        taps=TAPS,
        depthwise=DEPTHWISE,
    )

    def convolutions(self, convolution: Convolution, problems: Sequence[Forward]) -> Sequence[Normal | None]:
        """Convolutions of one shape, in one launch."""
        if convolution.kind == "separable":
            return separable(convolution, problems)
        return dense(convolution, problems) or [None] * len(problems)

    def convolutions_backward(
        self, convolution: Convolution, problems: Sequence[Backward]
    ) -> list[Gradients]:
        """The backward of what `convolutions` did together: as far as it can be, in one launch."""
        found: dict[int, Gradients] = {}
        for places in alike(range(len(problems)), lambda place: _likeness(problems[place])):
            chosen = [problems[place] for place in places]
            found |= zip(places, _backward_of(convolution, chosen)(convolution, chosen), strict=True)
        return [found[place] for place in range(len(problems))]

    def adds(self, problems: Sequence[Sum]) -> None:
        """Sums of one shape, in one launch."""
        add(problems)

    def adds_backward(self, problems: Sequence[SumBackward]) -> None:
        """The backward of what `adds` did together: as far as it can be, in one launch."""
        for kinds in launches(problems):
            add_backward(kinds)

    def global_average(self, source: Source, out: Tensor) -> None:
        """See `pnas_fast.kernels.fused.Primitives.global_average`."""
        global_average(source, out)

    def global_average_backward(self, source: Source, g: Tensor, into: Accumulator) -> None:
        """See `pnas_fast.kernels.fused.Primitives.global_average_backward`."""
        global_average_backward(source, g, into)


def _likeness(problem: Backward) -> Hashable:
    into = problem.into
    return None if into is None else pixel(into.z), pixel(problem.result.g), problem.result.training


def _backward_of(
    convolution: Convolution, problems: Sequence[Backward]
) -> Callable[[Convolution, Sequence[Backward]], list[Gradients]]:
    if convolution.kind == "separable":
        return separable_backward
    (z, _), _, result, into = problems[0]
    if into is not None and serves(convolution, z, result.z.shape[1]):
        return pointwise_backward
    return dense_backward
