"""The CPU's kernels: fp32, compiled from csrc/cpu, on PyTorch's own threads.

The instruction set (AVX-512, AVX2 or what every machine has) is found at run time; the environment
variable PNAS_FAST_CPU names another one to use. Results have the same bits at any number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import threadpoolctl
import torch
from torch import Tensor, nn

from pnas_fast.kernels.activation import Accumulator, Activation
from pnas_fast.kernels.arguments import DEPTHWISE, LARGEST, TAPS, Limits
from pnas_fast.kernels.backend import BackendError
from pnas_fast.kernels.eager import same_padding
from pnas_fast.kernels.fused import (
    Backward,
    Convolution,
    Forward,
    Gradients,
    Normal,
    Pooled,
    Source,
    Sum,
    SumBackward,
)
from pnas_fast.kernels.fused.functions import filters
from pnas_fast.kernels.layout import pixel

try:
    from pnas_fast import _cpu_kernels as compiled
except ImportError as error:
    raise BackendError(
        f"backend cpu: the compiled module pnas_fast._cpu_kernels is not usable ({error}); "
        "build it with: pip install -e ."
    ) from error

_KINDS = {"separable": 0, "dense": 1, "factorized": 2}
_POOLS = {None: 0, "avg": 1, "max": 2}

WeightView = tuple[int, int, int, int]
"""Address, and the strides of filters, channels and taps."""

SideGradient = tuple[compiled.Side, int, int, int, bool]
"""A side of a sum; dz, how far apart its pixels are, d_affine; whether these are added to."""


@cache
def share_threads_of_torch() -> None:
    """Have the compiled kernels run on PyTorch's own threads, from the first call on."""
    # Two OpenMP runtimes, or a thread pool beside one, would fight over the cores. PyTorch's own comes
    # first; where it came without one it runs on the system's.
    home = Path(torch.__file__).parent
    runtimes = [
        Path(info["filepath"]) for info in threadpoolctl.threadpool_info() if info["user_api"] == "openmp"
    ]
    for path in sorted(runtimes, key=lambda path: not path.is_relative_to(home)):
        entry = getattr(ctypes.CDLL(str(path)), "GOMP_parallel", None)
        if entry is not None:
            compiled.share_threads(ctypes.cast(entry, ctypes.c_void_p).value or 0)
            return


def require_instruction_set() -> None:
    """Check that the kernels use what PNAS_FAST_CPU asks for.

    Raises:
        BackendError: this machine does not have it, or there is no such set.
    """
    wish, used = compiled.asked_instruction_set(), compiled.instruction_set()
    if wish and wish != used:
        raise BackendError(
            f"PNAS_FAST_CPU is {wish!r}, which this machine does not have; allowed are those of "
            "plain avx2 avx512vl avx512 that it has"
        )


class CpuPrimitives:
    """See `Primitives`."""

    name = "cpu"
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    multiplies: frozenset[str] = frozenset(_KINDS)
    limits = Limits(
        "cpu",
        activations=dtypes,
        weights=(torch.float32,),
        states=(Activation,),
        device=lambda: "cpu",
        compiled=True,
        elements=LARGEST,
        taps=TAPS,
        depthwise=DEPTHWISE,
    )

    def __init__(self) -> None:
        share_threads_of_torch()

    def convolutions(self, convolution: Convolution, problems: Sequence[Forward]) -> list[Normal | None]:
        """See `Primitives.convolutions`."""
        return [_convolve(convolution, problem) for problem in problems]

    def convolutions_backward(
        self, convolution: Convolution, problems: Sequence[Backward]
    ) -> list[Gradients]:
        """See `Primitives.convolutions_backward`."""
        return [_convolve_backward(convolution, problem) for problem in problems]

    def adds(self, problems: Sequence[Sum]) -> None:
        """See `Primitives.adds`."""
        threads = torch.get_num_threads()
        for left, right, out in problems:
            sides = _side(left), None if right is None else _side(right)
            compiled.add_forward(tuple(out.shape), *sides, out.data_ptr(), pixel(out), threads)

    def adds_backward(self, problems: Sequence[SumBackward]) -> None:
        """See `Primitives.adds_backward`."""
        threads = torch.get_num_threads()
        for g, sides in _sums(problems):
            compiled.add_backward(tuple(g.shape), g.data_ptr(), pixel(g), sides, threads)

    def global_average(self, source: Source, out: Tensor) -> None:
        """See `Primitives.global_average`."""
        z = source.z
        compiled.average_forward(
            tuple(z.shape), z.data_ptr(), pixel(z), out.data_ptr(), torch.get_num_threads()
        )

    def global_average_backward(self, source: Source, g: Tensor, into: Accumulator) -> None:
        """See `Primitives.global_average_backward`."""
        z, dz = source.z, into.z
        compiled.average_backward(
            tuple(z.shape),
            z.data_ptr(),
            pixel(z),
            g.data_ptr(),
            dz.data_ptr(),
            pixel(dz),
            into.accumulate,
            torch.get_num_threads(),
        )


def _convolve(convolution: Convolution, problem: Forward) -> Normal | None:
    source, weights, norm, out = problem
    call = _compiled_convolution(convolution, source.z.shape, filters(convolution, weights))
    views = tuple(map(_view, weights))
    threads = torch.get_num_threads()
    if norm is None:
        call.forward(*_addresses(source), views, out.data_ptr(), threads)
        return None
    affine, statistics = out.new_empty(2, out.shape[1]), out.new_empty(2, out.shape[1])
    momentum = _momentum(norm)
    call.forward_normalised(
        *_addresses(source),
        views,
        out.data_ptr(),
        _address(norm.weight),
        _address(norm.bias),
        _address(norm.running_mean),
        _address(norm.running_var),
        _address(norm.num_batches_tracked),
        momentum,
        norm.eps,
        norm.training,
        affine.data_ptr(),
        statistics.data_ptr(),
        threads,
    )
    return Normal(affine, statistics)


def _convolve_backward(convolution: Convolution, problem: Backward) -> Gradients:
    source, weights, result, into = problem
    call = _compiled_convolution(convolution, source.z.shape, result.z.shape[1])
    d_weights = tuple(map(torch.empty_like, weights))
    gamma, normal = result.gamma, result.normal
    d_gamma = d_beta = None
    if gamma is not None:
        d_gamma, d_beta = torch.empty_like(gamma), torch.empty_like(gamma)
    call.backward(
        *_addresses(source),
        tuple(map(_view, weights)),
        result.z.data_ptr(),
        result.g.data_ptr(),
        pixel(result.g),
        _address(gamma),
        0 if normal is None else normal.statistics.data_ptr(),
        _address(result.d_affine),
        result.training,
        result.pending,
        _address(d_gamma),
        _address(d_beta),
        *_gradient_addresses(into),
        into is not None and into.accumulate,
        tuple(map(_view, d_weights)),
        torch.get_num_threads(),
    )
    return Gradients(d_weights, d_gamma, d_beta)


def augment(images: Tensor, rows: Tensor, table: Tensor, padding: int, cutout: int, out: Tensor) -> None:
    """Write a batch to ``out``; see `pnas_fast.kernels.augment.augment`.

    Raises:
        ValueError: a row of an image that there is not; a replay looks at its rows, too.
    """
    share_threads_of_torch()
    compiled.augment(
        tuple(out.shape),
        len(images),
        padding,
        cutout,
        images.data_ptr(),
        rows.data_ptr(),
        table.data_ptr(),
        table.element_size(),
        out.data_ptr(),
        torch.get_num_threads(),
    )


@lru_cache(maxsize=4096)
def _compiled_convolution(
    convolution: Convolution, shape: tuple[int, ...], outputs: int
) -> compiled.Convolution:
    images, channels, height, width = shape
    (kernel_height, kernel_width), stride, dilation = (
        convolution.kernel,
        convolution.stride,
        convolution.dilation,
    )
    return compiled.Convolution(
        _KINDS[convolution.kind],
        images=images,
        height=height,
        width=width,
        channels=channels,
        out_height=-(-height // stride[0]),
        out_width=-(-width // stride[1]),
        filters=outputs,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        stride_height=stride[0],
        stride_width=stride[1],
        dilation=dilation,
        top=same_padding(height, kernel_height, stride[0], dilation)[0],
        left=same_padding(width, kernel_width, stride[1], dilation)[0],
        rectify=convolution.rectify,
    )


def _momentum(norm: nn.BatchNorm2d) -> float:
    if norm.training and norm.momentum is None and norm.num_batches_tracked is not None:
        return 1.0 / (float(norm.num_batches_tracked) + 1.0)  # a plain average over all batches
    return norm.momentum or 0.0


def _sums(problems: Sequence[SumBackward]) -> list[tuple[Tensor, list[SideGradient]]]:
    """The gradient of each sum with its sides, one or both, as the compiled kernels take them."""
    sums: list[tuple[Tensor, list[SideGradient]]] = []
    for side, g, into, d_affine in problems:
        if not sums or sums[-1][0] is not g or len(sums[-1][1]) == 2:
            sums.append((g, []))
        to = (0, 0, _address(d_affine)) if into is None else _gradient_addresses(into)
        sums[-1][1].append((_side(side), *to, into is not None and into.accumulate))
    return sums


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(source: Source) -> tuple[int, int, int]:
    return source.z.data_ptr(), pixel(source.z), _address(source.affine)


def _gradient_addresses(into: Accumulator | None) -> tuple[int, int, int]:
    return (0, 0, 0) if into is None else (into.z.data_ptr(), pixel(into.z), _address(into.affine))


def _view(weight: Tensor) -> WeightView:
    # Taps are one dimension: by rows, then columns.
    tap = weight.stride(3) if weight.shape[3] > 1 else weight.stride(2)
    return weight.data_ptr(), weight.stride(0), weight.stride(1), tap


def _side(side: Pooled) -> compiled.Side:
    z = side.source.z
    return compiled.Side(
        *_addresses(side.source),
        z.shape[1],
        z.shape[2],
        z.shape[3],
        _POOLS[side.pool],
        side.stride,
        _address(side.keep),
    )
