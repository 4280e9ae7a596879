"""Kernels as PyTorch operators."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from oracle import activation
from pnas_fast.kernels import CellOutput, Side, get_backend
from pnas_fast.kernels.triton import library
from pnas_fast.kernels.triton.average import average_kernel
from pnas_fast.kernels.triton.library import call, name_of
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell
from where_triton_runs import default_device

pytestmark = pytest.mark.slow

TRITON = get_backend("triton")
KERNELS = {
    *("add", "add_backward", "average", "average_backward", "dense", "dense_backward"),
    *("pointwise_backward", "separable", "separable_backward"),
}


@pytest.fixture(autouse=True)
def where_they_run() -> Iterator[None]:
    with default_device():
        yield


def every_kernel() -> None:
    """Run each kernel at least once, forward and backward."""
    x = activation(2, 4, 3, 3).requires_grad_()
    weights = [
        torch.randn(shape, requires_grad=True)
        for shape in [(4, 1, 3, 3), (4, 4, 1, 1), (4, 4, 1, 1), (4, 4, 1, 7)]
    ]
    norms = [nn.BatchNorm2d(4) for _ in range(2)]
    states = [
        TRITON.separable(x, weights[0], weights[1], norms[0]),
        TRITON.convolution(x, weights[2], norms[1]),
    ]
    states.append(TRITON.convolution(states[1], weights[3], None))
    output = CellOutput(2)
    first = TRITON.add(Side(states[0]), Side(states[1], "max"), output, 0)
    second = TRITON.add(Side(states[2]), Side(states[1], "avg"), output, 1)
    TRITON.global_average(TRITON.concatenate([first, second], output)).sum().backward()  # type: ignore[no-untyped-call]


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
        single = [
            (name, one) for name, value in read for one in (value if isinstance(value, list) else [value])
        ]
        before = [(name, value, value.clone()) for name, value in single if isinstance(value, Tensor)]
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
    arguments = {"z": z, "affine": None, "out": out, **whole}
    call(average_kernel, (2, 1), arguments, frozenset(), {"num_warps": 4})
    assert name_of(average_kernel) == "average"


def average(z: Tensor) -> Tensor:
    """A kernel's operator between other operations, as a graph compiler meets it."""
    out = torch.empty(z.shape[:2])
    doubled = z * 2
    numbers = [1, 9, 4, False, 4]  # z_units, SIZE, C, AFFINE, ALIGN
    torch.ops.pnas_fast.average(doubled, None, out, *numbers, [2, 1], ["num_warps"], [4])
    return out + 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_an_operator_is_part_of_a_compiled_graph(backend: str) -> None:
    every_kernel()
    z = activation(2, 4, 3, 3)
    compiled = torch.compile(average, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(z), 2 * z.relu().mean((2, 3)) + 1)


def test_operators_are_what_they_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own checks of schema, registrations and fake tensors, of an operator whose tensors come in
    groups and of one whose do not.
    """
    called: dict[str, tuple[Any, ...]] = {}
    monkeypatch.setattr(
        library, "call", lambda kernel, *rest: called.setdefault(name_of(kernel), (kernel, *rest))
    )
    every_kernel()
    monkeypatch.undo()
    # Copies that PyTorch makes have the strides that a kernel is told: these read and write whole tensors.
    for name in ("separable", "average"):
        kernel, grid, arguments, grouped, options = called[name]
        # What other kernels would have written, had they been launched, is whatever lay in memory.
        for tensor in tree_leaves(arguments):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.detach().uniform_()
        call(kernel, grid, arguments, grouped, options)
        detached = {key: tree_map_only(Tensor, Tensor.detach, value) for key, value in arguments.items()}
        given = [list(detached[key] or ()) if key in grouped else detached[key] for key in kernel.arg_names]
        given += [list(grid), list(options), list(options.values())]
        checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
        operator = getattr(torch.ops.pnas_fast, name).default
        found = torch.library.opcheck(operator, tuple(given), test_utils=checks)
        assert set(found.values()) == {"SUCCESS"}


# The compiler looks at .grad of what it is given, and hides this warning where it is not an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_what_surrounds_operations_can_be_compiled(backend: str) -> None:
    """The fused operations and their gradients stay as they are, between compiled graphs."""
    x = activation(2, 4, 3, 3).requires_grad_()
    weights = [torch.randn(shape, requires_grad=True) for shape in [(4, 1, 3, 3), (4, 4, 1, 1)]]

    def surrounding(norm: nn.BatchNorm2d) -> Tensor:
        states = [TRITON.separable(torch.sin(x) * 2, weights[0], weights[1], norm), torch.cos(x)]
        output = CellOutput(1)
        block = TRITON.add(Side(states[0]), Side(states[1], "max"), output, 0)
        average = TRITON.global_average(TRITON.concatenate([block], output))
        return average.square().sum() + 1

    found = []
    for function in (surrounding, torch.compile(surrounding, backend=backend)):
        norm = nn.BatchNorm2d(4)
        out = function(norm)
        found.append((out, *torch.autograd.grad(out, [x, *weights, norm.weight]), norm.running_mean))
    torch.testing.assert_close(*found)


def test_a_child_can_be_compiled() -> None:
    network = ChildNetwork(
        Cell.parse("0:identity+1:max_pool3x3"), 1, 2, 3, (3, 4, 4), backend="triton"
    ).eval()
    images = torch.randn(1, 3, 4, 4)
    compiled = torch.compile(network, backend="aot_eager")
    # With gradients, PyTorch warns of its own look at what lies between two compiled parts.
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images))
