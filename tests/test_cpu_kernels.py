"""The CPU backend against the eager oracle in fp64."""

import itertools
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracle import activation, compare, new_norm
from pnas_fast.kernels import Backend, BackendError, CellOutput, Side, get_backend, resolve_backend
from poison import poison_new_tensors

CPU = get_backend("cpu")

# (images, channels, filters, height, width): whole vectors, partly full ones, one channel, one image, maps
# smaller than the kernel, odd and even sizes, more rows than a tile.
SHAPES = [
    (2, 24, 24, 8, 8),
    (3, 7, 5, 5, 6),
    (1, 1, 2, 6, 5),
    (4, 3, 2, 3, 2),
    (2, 54, 27, 7, 9),
    (5, 40, 32, 4, 13),
]
SPREADS = [(3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (7, 2, 1), (3, 1, 2), (3, 2, 2)]
"""Kernel, stride and dilation of every depthwise convolution of the space."""

DENSE = [(1, 1), (1, 7), (7, 1), (3, 3)]
POOLS = [None, "avg", "max"]


@pytest.fixture(autouse=True)
def seed() -> None:
    # Fresh inputs each time; a failure shows with what they can be had again.
    print("torch.manual_seed", torch.seed())


def new_weight(*shape: int) -> Tensor:
    """Of such a size that a convolution leaves the variance of its source about as it is.

    What a norm divides by would else have little of its epsilon in it, and the true gradient of a weight that
    only scales, as a pointwise one does of a single channel, would all but vanish.
    """
    scale: float = math.prod(shape[1:]) ** 0.5
    return torch.randn(*shape) / scale


def norm_of(filters: int) -> nn.BatchNorm2d:
    # With a small epsilon a norm undoes the scale of its input, and true gradients of few channels vanish.
    norm = new_norm(filters)
    norm.eps = 0.5
    return norm


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), SPREADS)
def test_separable(shape: tuple[int, ...], kernel: int, stride: int, dilation: int) -> None:
    images, channels, filters, *size = shape

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.separable(x[0], weights[0], weights[1], norm, stride=stride, dilation=dilation)

    weights = [new_weight(channels, 1, kernel, kernel), new_weight(filters, channels, 1, 1)]
    compare(CPU, operation, [activation(images, channels, *size)], weights, norm_of(filters))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("kernel", DENSE)
@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_dense(
    shape: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], rectify: bool
) -> None:
    images, channels, filters, *size = shape

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.convolution(x[0], weights[0], norm, stride=stride, rectify=rectify)

    weights = [new_weight(filters, channels, *kernel)]
    norm = norm_of(filters) if rectify else None
    compare(CPU, operation, [activation(images, channels, *size)], weights, norm)


@pytest.mark.parametrize(
    "shape", [(2, 16, 16, 3, 3), (3, 17, 20, 2, 5), (2, 130, 33, 12, 1), (1, 16, 15, 6, 7)]
)
@pytest.mark.parametrize("kernel", [(1, 7), (7, 1)])
def test_lines_of_taps_by_points_and_where_that_begins(
    shape: tuple[int, ...], kernel: tuple[int, int]
) -> None:
    """Lines of a few pixels, of parts of a tile, and of too few channels or pixels for points."""
    test_dense(shape, kernel, (1, 1), rectify=True)
    test_dense(shape, kernel, (1, 1), rectify=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("filters", "rectify"), [(2, True), (13, True), (48, True), (2, False), (13, False)])
def test_factorized_reduction(shape: tuple[int, ...], filters: int, rectify: bool) -> None:
    images, channels, _, *size = shape

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.factorized_reduction(x[0], weights[0], weights[1], norm, rectify=rectify)

    paths = filters // 2, filters - filters // 2
    weights = [new_weight(path, channels, 1, 1) for path in paths]
    compare(CPU, operation, [activation(images, channels, *size)], weights, norm_of(filters))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize("stride", [(2, 2), (2, 1), (1, 2)])
def test_pixels_that_are_picked_of_a_source_that_others_read(
    size: tuple[int, int], stride: tuple[int, int]
) -> None:
    """1×1 convolutions of a stride whose gradient is the first of a source and is added to another's."""

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        state, output = pending(backend, x[0], norm), CellOutput(2)
        one, two = (
            backend.convolution(state, weights[i], None, stride=stride, rectify=i > 0) for i in (0, 1)
        )
        blocks = [
            backend.add(Side(one), Side(two), output, 0),
            backend.add(Side(two, "avg"), Side(one), output, 1),
        ]
        return backend.concatenate(blocks, output)

    weights = [new_weight(9, 9, 1, 1), new_weight(9, 9, 1, 1)]
    compare(CPU, operation, [activation(3, 9, *size)], weights, norm_of(9))


def stepped(*shape: int) -> Tensor:
    """Values a 64th apart or equal: rounding then neither makes nor breaks a tie for the greatest."""
    return activation(*shape).mul(64).round().div(64)


def pending(backend: Backend[Any], x: Tensor, norm: nn.BatchNorm2d | None) -> Any:
    """A state that is x with a batch norm still to be applied."""
    identity = torch.eye(x.shape[1], dtype=x.dtype).view(x.shape[1], -1, 1, 1)
    return backend.convolution(x, identity, norm, rectify=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("left", "right"), list(itertools.product(POOLS, POOLS)))
def test_add(shape: tuple[int, ...], stride: int, left: Any, right: Any) -> None:
    """Two blocks of a cell, the second reading the first; sides with and without a pending norm."""
    images, channels, _, *size = shape
    keep = torch.arange(images, dtype=torch.float32).view(-1, 1, 1, 1)

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        def side(state: Any, pool: Any, kept: bool) -> Side[Any]:
            if pool is None and stride > 1:
                state = backend.pool(state, "avg", stride)
            return Side(state, pool, stride if pool else 1, keep.to(x[0].dtype) if kept else None)

        normalised, output = pending(backend, x[0], norm), CellOutput(2)
        first = backend.add(side(normalised, left, False), side(x[1], right, True), output, 0)
        again = Side(first, "avg" if right == "avg" else None)
        second = backend.add(again, side(normalised, left, True), output, 1)
        return backend.concatenate([first, second], output)

    sources = [stepped(images, channels, *size), stepped(images, channels, *size)]
    compare(CPU, operation, sources, [], norm_of(channels))


@pytest.mark.parametrize("shape", SHAPES)
def test_add_of_one_side_puts_it_among_the_blocks(shape: tuple[int, ...]) -> None:
    """A cell input that is concatenated, and a block that is not but is read."""
    images, channels, _, *size = shape

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        normalised, output = pending(backend, x[0], norm), CellOutput(3)
        inner = backend.add(Side(x[1]), Side(normalised, "max"), CellOutput(1), 0)
        block = backend.add(Side(inner), Side(normalised), output, 2)
        alone = backend.add(Side(normalised), None, output, 0)
        raw = backend.add(Side(x[1]), None, output, 1)
        return backend.concatenate([alone, raw, block], output)

    sources = [stepped(images, channels, *size), stepped(images, channels, *size)]
    compare(CPU, operation, sources, [], norm_of(channels))


# Over a few pixels that are all positive the mean's gradient is the same for each, and a norm's is then zero;
# over a few of which hardly any is positive the mean itself is next to nothing.
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] > 2])
def test_global_average(shape: tuple[int, ...]) -> None:
    images, channels, filters, *size = shape

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        averages = backend.global_average(backend.convolution(x[0], weights[0], norm))
        return averages.view(images, filters, 1, 1).contiguous(memory_format=torch.channels_last)

    weights = [new_weight(filters, channels, 1, 1)]
    compare(CPU, operation, [activation(images, channels, *size)], weights, norm_of(filters))


def test_evaluation_mode_uses_running_statistics_and_leaves_them() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.separable(x[0], weights[0], weights[1], norm)

    norm = new_norm(16).eval()
    compare(
        CPU, operation, [activation(2, 9, 6, 6)], [torch.randn(9, 1, 3, 3), torch.randn(16, 9, 1, 1)], norm
    )
    compare(
        CPU, operation, [activation(1, 9, 1, 1)], [torch.randn(9, 1, 3, 3), torch.randn(16, 9, 1, 1)], norm
    )


@pytest.mark.parametrize("momentum", [0.3, None])
def test_momentum_and_count_of_batches(momentum: float | None) -> None:
    x, weight = activation(4, 6, 5, 5), torch.randn(8, 6, 1, 1)
    norms = [nn.BatchNorm2d(8, momentum=momentum) for _ in range(2)]
    for _ in range(3):
        for backend, norm in zip((CPU, get_backend("eager")), norms, strict=True):
            backend.convolution(x, weight, norm)
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


def test_statistics_keep_their_digits_far_from_zero() -> None:
    x = activation(8, 4, 16, 16) + 1000.0
    norm = nn.BatchNorm2d(4, momentum=1.0)
    CPU.convolution(x, torch.eye(4).view(4, 4, 1, 1), norm, rectify=False)
    expected = x.double().var(dim=(0, 2, 3))
    assert norm.running_var is not None
    assert float((norm.running_var.double() - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("operation", ["separable", "dense", "factorized", "add"])
def test_every_element_is_written(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor the backend makes is full of NaN until a kernel has written to it."""
    weights = {
        "separable": [(24, 1, 5, 5), (13, 24, 1, 1)],
        "dense": [(13, 24, 1, 7)],
        "factorized": [(6, 24, 1, 1), (7, 24, 1, 1)],
        "add": [],
    }[operation]

    def run(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        if operation == "separable":
            return backend.separable(x[0], weights[0], weights[1], norm, stride=2)
        if operation == "dense":
            return backend.convolution(x[0], weights[0], norm, stride=(1, 2))
        if operation == "factorized":
            return backend.factorized_reduction(x[0], weights[0], weights[1], norm)
        state, output = pending(backend, x[0], norm), CellOutput(2)
        blocks = [
            backend.add(Side(state, "max", 2), Side(state, "avg", 2), output, block) for block in range(2)
        ]
        return backend.concatenate(blocks, output)

    poison_new_tensors(monkeypatch)
    filters = 24 if operation == "add" else 13
    compare(CPU, run, [stepped(2, 24, 7, 6)], [torch.randn(*shape) for shape in weights], norm_of(filters))


def test_nan_goes_through() -> None:
    x = activation(2, 4, 3, 3)
    x[0, 1, 1, 1] = float("nan")
    weights = torch.randn(4, 1, 3, 3), torch.randn(5, 4, 1, 1)
    out = CPU.materialise(CPU.separable(x, *weights, nn.BatchNorm2d(5)))
    assert out.isnan().any(dim=(0, 2, 3)).all()
    for kind in ("max", "avg"):
        assert CPU.materialise(CPU.pool(x, kind, 1)).isnan().sum() == 9
    assert CPU.global_average(x).isnan().sum() == 1


@pytest.mark.parametrize("stride", [1, 2])
def test_maxima_of_infinities_and_nan(stride: int) -> None:
    """As PyTorch's, wherever they are, also where both infinities are in a row and no NaN is."""
    x = activation(5, 43, 9, 7)
    for value in (math.inf, -math.inf, math.nan):
        x[torch.rand(x.shape) < 0.1] = value
    x[0].nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)
    x[1, :, 2:6] = -math.inf
    expected = get_backend("eager").pool(x, "max", stride)
    assert torch.equal(
        CPU.materialise(CPU.pool(x, "max", stride)).nan_to_num(1e30), expected.nan_to_num(1e30)
    )


def test_one_result_at_any_number_of_threads() -> None:
    x = activation(19, 24, 9, 9).requires_grad_()
    weights = [torch.randn(24, 1, 7, 7, requires_grad=True), torch.randn(24, 24, 1, 1, requires_grad=True)]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            norm, output = nn.BatchNorm2d(24), CellOutput(1)
            z = CPU.separable(x, weights[0], weights[1], norm)
            out = CPU.materialise(CPU.concatenate([CPU.add(Side(z, "max"), Side(z), output, 0)], output))
            torch.manual_seed(0)
            gradients = torch.autograd.grad(out, [x, *weights, norm.weight], torch.randn(out.shape))
            assert norm.running_var is not None
            results.append([out, norm.running_var, *gradients])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize(
    ("x", "found"),
    [
        (torch.zeros(1, 4, 5, 5, dtype=torch.float64), "torch.float64"),
        (torch.zeros(1, 4, 5, 5, dtype=torch.bfloat16), "torch.bfloat16"),
        (torch.zeros(2, 4, 5, 5), "strides"),
        (torch.zeros(4, 5, 5), r"shape is \(4, 5, 5\)"),
        (torch.zeros(1, 4, 5, 5, device="meta"), "meta"),
    ],
)
def test_activations_it_cannot_read_are_refused(x: Tensor, found: str) -> None:
    with pytest.raises(BackendError, match=found):
        CPU.convolution(x, torch.zeros(4, 4, 1, 1), None)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [((4, 4), 1, 1), ((3, 5), 1, 1), ((3, 3), 3, 1), ((5, 5), 1, 2)]
)
def test_depthwise_kernels_outside_the_space_are_refused(
    kernel: tuple[int, int], stride: int, dilation: int
) -> None:
    with pytest.raises(BackendError, match=r"allowed is 3×3|allowed is .4, 1, k, k|stride is .3, 3"):
        CPU.separable(
            activation(1, 4, 8, 8),
            torch.zeros(4, 1, *kernel),
            torch.zeros(4, 4, 1, 1),
            nn.BatchNorm2d(4),
            stride=stride,
            dilation=dilation,
        )


def test_weights_of_another_type_or_of_too_many_taps_are_refused() -> None:
    with pytest.raises(BackendError, match=r"torch\.float64"):
        CPU.convolution(activation(1, 4, 8, 8), torch.zeros(4, 4, 1, 1, dtype=torch.float64), None)
    with pytest.raises(BackendError, match="taps"):
        CPU.convolution(activation(1, 4, 8, 8), torch.zeros(4, 4, 8, 8), None)


def test_differentiating_twice_is_refused() -> None:
    x = activation(1, 4, 5, 5).requires_grad_()
    out = CPU.materialise(CPU.convolution(x, torch.randn(4, 4, 1, 1), nn.BatchNorm2d(4)))
    (gradient,) = torch.autograd.grad((out * out).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNAS_FAST_CPU", "avx3")
    with pytest.raises(BackendError, match="PNAS_FAST_CPU is 'avx3', which this machine does not have"):
        resolve_backend("auto", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "avx2", "avx512vl", "avx512"])
def test_every_instruction_set_of_this_machine(name: str) -> None:
    """A few of the tests above in a process that is told which instruction set to use."""
    environment = dict(os.environ, PNAS_FAST_CPU=name)
    ask = "from pnas_fast import _cpu_kernels as k; print(k.instruction_set())"
    command = [sys.executable, "-c", ask]
    used = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    if used != name:
        pytest.skip(f"this machine has no {name}")
    if name == os.environ.get("PNAS_FAST_CPU"):
        return
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    chosen = [
        "test_separable",
        "test_factorized_reduction",
        "(test_add and max)",
        "maxima",
        "(test_dense and kernel3)",
    ]
    command += ["-k", " or ".join(chosen)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]
