"""Kernels as PyTorch operators."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from oracle import activation
from pnas_fast.kernels import CellOutput, Side, get_backend
from pnas_fast.kernels.triton.average import average_kernel
from pnas_fast.kernels.triton.library import call, name_of

TRITON = get_backend("triton")
KERNELS = {
    *("add", "add_backward", "average", "average_backward", "dense", "dense_backward"),
    *("pointwise_backward", "separable", "separable_backward"),
}


def every_kernel() -> None:
    """Run each kernel at least once, forward and backward."""
    x = activation(2, 4, 3, 3).requires_grad_()
    weights = [
        torch.randn(shape, requires_grad=True)
        for shape in [(4, 1, 3, 3), (4, 4, 1, 1), (4, 4, 1, 1), (4, 4, 1, 7)]
    ]
    norms = [nn.BatchNorm2d(4) for _ in range(2)]
    states = [TRITON.separable(x, *weights[:2], norms[0]), TRITON.convolution(x, weights[2], norms[1])]
    states.append(TRITON.convolution(states[1], weights[3], None))
    output = CellOutput(2)
    first = TRITON.add(Side(states[0]), Side(states[1], "max"), output, 0)
    second = TRITON.add(Side(states[2]), Side(states[1], "avg"), output, 1)
    TRITON.global_average(TRITON.concatenate([first, second], output)).sum().backward()


class Watch(TorchDispatchMode):  # type: ignore[misc, no-untyped-call]
    """Which operators ran, and which changed an argument that they say they only read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran: set[str] = set()
        self.broken: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Any = None
    ) -> Any:
        if function.namespace != "pnas_fast":
            return function(*arguments, **(keywords or {}))
        self.ran.add(function.overloadpacket.__name__)
        given = zip(function._schema.arguments, arguments, strict=True)
        read = [(place.name, value) for place, value in given if not place.is_write]
        before = [(name, value, value.clone()) for name, value in read if isinstance(value, Tensor)]
        function(*arguments)
        for name, value, kept in before:
            if not torch.equal(value, kept):
                self.broken.append(f"{function}: {name}")
        return None


def test_every_launch_is_an_operator_that_writes_what_it_says() -> None:
    with Watch() as watch:
        every_kernel()
    assert watch.ran == KERNELS
    assert not watch.broken


def test_the_profiler_names_kernels() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        every_kernel()
    names = {event.key for event in profile.key_averages()}
    assert {f"pnas_fast::{name}" for name in KERNELS} <= names


def test_on_tensors_without_memory_nothing_runs() -> None:
    """As a graph compiler asks: the result is nothing, and no kernel reads what is not there."""
    every_kernel()
    z, out = torch.empty(2, 4, 3, 3, device="meta"), torch.empty(2, 4, device="meta")
    whole = {"SIZE": 9, "z_units": 1, "C": 4, "AFFINE": False, "ALIGN": 4}
    call(average_kernel, (2, 1), {"z": z, "affine": None, "out": out, **whole}, {"num_warps": 4})
    assert name_of(average_kernel) == "average"
