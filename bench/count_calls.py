"""Calls a few CPU kernels once each, for valgrind to count: `bench/instructions.py` runs it.

The compiled module is loaded by itself, without the package and torch, which would take minutes.

    python bench/count_calls.py MODULE.so

Prints the name of each call. A call of `MARKER`, which nothing else here calls, comes right before and right
after each.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

IMAGES, SIZE, CHANNELS = 8, 10, 24
STATE = IMAGES * SIZE * SIZE * CHANNELS
VALUES = array("f", ((index * 37 % 101 - 50) / 50 for index in range(101)))
STAGE = (IMAGES, CHANNELS, SIZE, SIZE)
SEPARABLE, DENSE = 0, 1
AVERAGE_POOL, MAX_POOL = 1, 2
MARKER = "getppid"
"""A function of the C library."""


class Memory:
    """Float32 buffers, filled with values that differ in sign."""

    def __init__(self) -> None:
        self._kept: list[array[float]] = []

    def new(self, size: int) -> int:
        """The address of a new buffer."""
        self._kept.append((VALUES * (size // len(VALUES) + 1))[:size])
        return self._kept[-1].buffer_info()[0]


def load(path: str) -> Any:
    loader = ExtensionFileLoader("_cpu_kernels", path)
    spec = spec_from_loader("_cpu_kernels", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def call(name: str, function: Callable[..., None], *arguments: Any) -> None:
    os.getppid()
    function(*arguments)
    os.getppid()
    print(name)


def convolution(kernels: Any, name: str, kind: int, kernel: tuple[int, int], stride: int) -> None:
    """Forward with batch statistics, then backward to source, weights and norm."""
    memory = Memory()
    out_size = -(-SIZE // stride)
    height, width = kernel
    compiled = kernels.Convolution(
        kind,
        images=IMAGES,
        height=SIZE,
        width=SIZE,
        channels=CHANNELS,
        out_height=out_size,
        out_width=out_size,
        filters=CHANNELS,
        kernel_height=height,
        kernel_width=width,
        stride_height=stride,
        stride_width=stride,
        dilation=1,
        top=max((out_size - 1) * stride + height - SIZE, 0) // 2,
        left=max((out_size - 1) * stride + width - SIZE, 0) // 2,
        rectify=True,
    )
    taps = height * width

    def weights() -> tuple[tuple[int, int, int, int], ...]:
        pointwise = (memory.new(CHANNELS * CHANNELS), CHANNELS, 1, 1)
        if kind == SEPARABLE:
            return (memory.new(CHANNELS * taps), taps, taps, 1), pointwise
        return ((memory.new(CHANNELS * CHANNELS * taps), CHANNELS * taps, taps, 1),)

    def pair() -> int:
        return memory.new(2 * CHANNELS)

    source = memory.new(STATE), CHANNELS, pair(), weights()
    out, gamma, beta, statistics = memory.new(STATE), pair(), pair(), pair()
    norm = gamma, beta, 0, 0, 0, 0.1, 1e-5, True, pair(), statistics
    call(f"{name} forward", compiled.forward_normalised, *source, out, *norm, 1)
    incoming = out, memory.new(STATE), CHANNELS, gamma, statistics, pair(), True, False, pair(), pair()
    gradient = memory.new(STATE), CHANNELS, pair(), False, weights()
    call(f"{name} backward", compiled.backward, *source, *incoming, *gradient, 1)


def addition(kernels: Any, pool: int, name: str) -> None:
    """Of two pending batch norms, one pooled; backward to that one."""
    memory = Memory()

    def side(pool: int) -> Any:
        affine = memory.new(2 * CHANNELS)
        return kernels.Side(memory.new(STATE), CHANNELS, affine, CHANNELS, SIZE, SIZE, pool, 1, 0)

    pooled = side(pool)
    call(f"{name} forward", kernels.add_forward, STAGE, side(0), pooled, memory.new(STATE), CHANNELS, 1)
    gradient = memory.new(STATE), CHANNELS, memory.new(2 * CHANNELS), False
    call(
        f"{name} backward", kernels.add_backward, STAGE, memory.new(STATE), CHANNELS, [(pooled, *gradient)], 1
    )


def main() -> None:
    kernels = load(sys.argv[1])
    for kernel in (3, 5, 7):
        for stride in (1, 2):
            name = f"sep{kernel}x{kernel} half, stride {stride},"
            convolution(kernels, name, SEPARABLE, (kernel, kernel), stride)
    convolution(kernels, "pointwise,", DENSE, (1, 1), 1)
    convolution(kernels, "conv1x7,", DENSE, (1, 7), 1)
    convolution(kernels, "conv7x1,", DENSE, (7, 1), 1)
    addition(kernels, 0, "add norm + norm,")
    addition(kernels, AVERAGE_POOL, "add norm + avg_pool3x3,")
    addition(kernels, MAX_POOL, "add norm + max_pool3x3,")


if __name__ == "__main__":
    main()
