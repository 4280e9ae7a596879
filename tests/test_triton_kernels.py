"""Triton's kernels, compiled on a card and interpreted without one, against the eager oracle in fp64.

The interpreter is slow: what varies by itself is varied at once (`beside`), so that every value of each
occurs with several of the others but not every pair with every pair.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracle import activation, compare, new_norm
from pnas_fast.kernels import Backend, BackendError, CellOutput, Side, get_backend
from pnas_fast.kernels.triton.dense import folds
from pnas_fast.kernels.triton.separable import arranged
from pnas_fast.network.layers import SeparableHalf, Shape
from poison import poison_new_tensors
from where_triton_runs import BF16_ERROR, DEVICE, default_device

pytestmark = pytest.mark.slow

TRITON = get_backend("triton")
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: 2 * (BF16_ERROR,), torch.float16: (2e-3, 6e-3)}
"""Largest relative error of results and of gradients."""

SPREADS = [(3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (7, 2, 1), (3, 1, 2), (3, 2, 2)]
"""Kernel, stride and dilation of every depthwise convolution of the space."""

DENSE = [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 7), (1, 2)), ((7, 1), (2, 1)), ((3, 3), (1, 1))]


SHAPES = [(2, 24, 24, 5, 6), (3, 7, 5, 4, 3), (1, 40, 54, 1, 3)]
"""Images, channels, filters, height, width."""


def beside(many: Sequence[Any], *few: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Each of many with one of each few, these over and over."""
    return list(
        zip(many, *(itertools.islice(itertools.cycle(values), len(many)) for values in few), strict=True)
    )


@pytest.fixture(autouse=True)
def seed() -> None:
    # Fresh inputs each time; a failure shows with what they can be had again.
    print("torch.manual_seed", torch.seed())


@pytest.fixture(autouse=True)
def where_they_run() -> Iterator[None]:
    with default_device():
        yield


@pytest.fixture(autouse=True)
def poisoned(where_they_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def norm_of(filters: int) -> nn.BatchNorm2d:
    # With a small epsilon a norm undoes the scale of its input, and true gradients of few channels vanish.
    norm = new_norm(filters)
    norm.eps = 0.5
    return norm


def check(
    operation: Any, shapes: list[tuple[int, ...]], weights: Sequence[Tensor], norm: Any, dtype: torch.dtype
) -> None:
    """Compare an operation on random sources, rounded to a type, with the oracle."""
    forward, gradient = TOLERANCES[dtype]
    sources = [activation(*shape).to(dtype).float() for shape in shapes]

    def rounded(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        x = [source.to(dtype) for source in x] if backend is TRITON else x
        return operation(backend, x, weights, norm)

    compare(TRITON, rounded, sources, list(weights), norm, forward=forward, gradient=gradient)


def separable(stride: int, dilation: int = 1) -> Any:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.separable(x[0], weights[0], weights[1], norm, stride=stride, dilation=dilation)

    return operation


def separable_weights(channels: int, filters: int, kernel: int) -> tuple[Tensor, Tensor]:
    return torch.randn(channels, 1, kernel, kernel), torch.randn(filters, channels, 1, 1)


@pytest.mark.parametrize(("spread", "shape"), beside(SPREADS, SHAPES), ids=str)
def test_separable(spread: tuple[int, ...], shape: tuple[int, ...]) -> None:
    (kernel, stride, dilation), (images, channels, filters, *size) = spread, shape
    weights = separable_weights(channels, filters, kernel)
    source = (images, channels, *size)
    check(separable(stride, dilation), [source], weights, norm_of(filters), torch.float32)


@pytest.mark.parametrize(("spread", "shape"), beside(SPREADS, SHAPES[::-1]), ids=str)
def test_separable_with_weights_as_networks_lay_them(spread: tuple[int, ...], shape: tuple[int, ...]) -> None:
    (kernel, stride, dilation), (images, channels, filters, *size) = spread, shape
    half = SeparableHalf(
        TRITON, Shape(channels, *size), filters, kernel=kernel, stride=stride, dilation=dilation
    )
    half.arrange()
    weights = [half.depthwise.detach(), half.pointwise.detach()]
    assert arranged(*weights)
    check(separable(stride, dilation), [(images, channels, *size)], weights, norm_of(filters), torch.float32)


@pytest.mark.parametrize(
    ("width", "dtype", "spread"),
    beside([(48, 48), (96, 96), (54, 27), (24, 150)], [torch.bfloat16, torch.float16], SPREADS[:3]),
    ids=str,
)
def test_separable_in_half_precision(
    width: tuple[int, int], dtype: torch.dtype, spread: tuple[int, ...]
) -> None:
    (channels, filters), (kernel, stride, dilation) = width, spread
    weights = separable_weights(channels, filters, kernel)
    check(separable(stride, dilation), [(2, channels, 4, 3)], weights, norm_of(filters), dtype)


def test_two_halves_one_after_the_other() -> None:
    """The second reads the first's pending norm, whose gradients it must return."""

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        half = backend.separable(x[0], weights[0], weights[1], norm, stride=2)
        return backend.separable(half, weights[2], weights[3], nn.BatchNorm2d(13).to(weights[0].dtype))

    weights = separable_weights(9, 13, 5) + separable_weights(13, 13, 3)
    check(operation, [(3, 9, 7, 6)], weights, norm_of(13), torch.float32)


def test_outside_of_the_image_is_nothing_whatever_the_scale() -> None:
    """Beside an image whose channels are scaled by 0, by less and by more, all shifted above 0."""

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        half = backend.separable(x[0], weights[0], weights[1], norm)
        return backend.separable(half, weights[2], weights[3], nn.BatchNorm2d(4).to(weights[0].dtype))

    norm = norm_of(6)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.0, -1.0, 1.0, 0.0, -0.1, 3.0]))
        norm.bias.fill_(2.0)
    check(
        operation,
        [(2, 3, 4, 5)],
        separable_weights(3, 6, 3) + separable_weights(6, 4, 5),
        norm,
        torch.float32,
    )


@pytest.mark.parametrize(
    ("window", "rectify", "shape"),
    beside(DENSE * 2, [True, False], [*SHAPES[:2], (2, 72, 40, 1, 3)]),
    ids=str,
)
def test_dense(window: tuple[Any, Any], rectify: bool, shape: tuple[int, ...]) -> None:
    (kernel, stride), (images, channels, filters, *size) = window, shape

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.convolution(x[0], weights[0], norm, stride=stride, rectify=rectify)

    weights = [torch.randn(filters, channels, *kernel)]
    norm = norm_of(filters) if rectify else None
    check(operation, [(images, channels, *size)], weights, norm, torch.float32)


@pytest.mark.parametrize(
    ("channels", "stride", "layout", "source"),
    beside(
        [1, 3, 2, 3, 3, 1],
        [(1, 1), (2, 2), (1, 1)],
        [torch.channels_last, torch.contiguous_format],
        [False, False, False, True],
    ),
    ids=str,
)
def test_few_channels_of_all_taps_at_once(
    channels: int, stride: tuple[int, int], layout: torch.memory_format, source: bool
) -> None:
    """With the gradient of the source, and without, as of a stem's images."""

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        images = x[0] if source else x[0].detach()
        return backend.convolution(images, weights[0], norm, stride=stride, rectify=False)

    weights = [torch.randn(13, channels, 3, 3).contiguous(memory_format=layout)]
    assert folds((weights[0],))
    check(operation, [(2, channels, 5, 6)], weights, norm_of(13), torch.float32)


@pytest.mark.parametrize(
    ("channels", "filters", "dtype"), [(96, 54, torch.bfloat16), (24, 150, torch.float16)]
)
def test_row_and_column_in_half_precision(channels: int, filters: int, dtype: torch.dtype) -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        row = backend.convolution(x[0], weights[0], None)
        return backend.convolution(row, weights[1], norm, rectify=False)

    weights = [torch.randn(channels, channels, 1, 7), torch.randn(filters, channels, 7, 1)]
    check(operation, [(2, channels, 3, 4)], weights, norm_of(filters), dtype)


@pytest.mark.parametrize(
    ("filters", "dtype", "size"),
    [
        (2, torch.float32, (1, 1)),
        (27, torch.float32, (4, 6)),
        (27, torch.float32, (1, 1)),
        (140, torch.float32, (5, 3)),
        (48, torch.bfloat16, (4, 6)),
    ],
    ids=str,
)
def test_factorized_reduction(filters: int, dtype: torch.dtype, size: tuple[int, int]) -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.factorized_reduction(x[0], weights[0], weights[1], norm)

    weights = [torch.randn(path, 40, 1, 1) for path in (filters // 2, filters - filters // 2)]
    check(operation, [(3, 40, *size)], weights, norm_of(filters), dtype)


def test_factorized_reduction_without_a_relu() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.factorized_reduction(x[0], weights[0], weights[1], norm, rectify=False)

    weights = [torch.randn(path, 7, 1, 1) for path in (6, 7)]
    check(operation, [(3, 7, 5, 4)], weights, norm_of(13), torch.float32)


def test_add_of_one_side_puts_it_among_the_blocks() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        pending, output = backend.convolution(x[0], weights[0], norm), CellOutput(3)
        inner = backend.add(Side(x[1]), Side(pending, "avg"), CellOutput(1), 0)
        block = backend.add(Side(inner), Side(pending), output, 2)
        alone = backend.add(Side(pending), None, output, 0)
        raw = backend.add(Side(x[1]), None, output, 1)
        return backend.concatenate([alone, raw, block], output)

    check(operation, [(2, 8, 3, 4)] * 2, [torch.randn(8, 8, 1, 1)], norm_of(8), torch.float32)


@pytest.mark.parametrize(
    ("case", "shape"),
    beside(
        list(itertools.product([1, 2], [None, "avg", "max"], [None, "avg", "max"])),
        [(2, 24, 5, 6), (3, 7, 4, 3), (2, 54, 1, 1), (1, 40, 3, 2)],
    ),
    ids=str,
)
def test_add(case: tuple[int, Any, Any], shape: tuple[int, ...]) -> None:
    """Two blocks of a cell, the second reading the first; sides with and without a pending norm."""
    stride, left, right = case
    keep = torch.arange(shape[0], dtype=torch.float32).view(-1, 1, 1, 1)

    def side(x: Any, pool: Any, kept: bool) -> Side[Any]:
        return Side(x, pool, stride if pool else 1, keep.to(x.dtype) if kept else None)

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        pending = backend.convolution(x[0], weights[0], norm)
        small = [backend.pool(state, "avg", stride) if stride > 1 else state for state in (pending, x[1])]
        output = CellOutput(2)
        first_left = side(pending if left else small[0], left, False)
        first = backend.add(first_left, side(x[1] if right else small[1], right, True), output, 0)
        again = side(pending if left else small[0], left, True)
        second = backend.add(Side(first, right), again, output, 1)
        return backend.concatenate([first, second], output)

    weights = [torch.randn(shape[1], shape[1], 1, 1)]
    check(operation, [shape, shape], weights, norm_of(shape[1]), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_add_in_half_precision(dtype: torch.dtype) -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        output = CellOutput(1)
        return backend.concatenate([backend.add(Side(x[0], "avg"), Side(x[1]), output, 0)], output)

    check(operation, [(2, 48, 4, 5)] * 2, [], None, dtype)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(5, 6), (6, 5), (2, 2)], ids=str)
def test_ties_of_a_maximum_go_to_the_first(stride: int, size: tuple[int, int]) -> None:
    x = torch.randint(0, 2, (2, 8, *size)).float().contiguous(memory_format=torch.channels_last)

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        return backend.pool(x[0], "max", stride)

    compare(TRITON, operation, [x], [])


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_ties_of_a_maximum_whatever_the_scale(stride: int, dtype: torch.dtype) -> None:
    """Of few values, -0 among them, many are equal; a negative scale turns their order, 0 makes all equal."""
    channels = 12
    x = torch.randint(-1, 2, (2, channels, 7, 6)) * torch.randint(0, 2, (2, channels, 7, 6)).float()
    x = torch.where(x == 0, x * (1 - 2 * torch.randint(0, 2, x.shape)), x)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.eye(channels).view(channels, channels, 1, 1)
    norm = norm_of(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).repeat(channels // 3))

    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        source = x[0].to(dtype) if backend is TRITON else x[0]
        pending = backend.convolution(source, weights[0], norm, rectify=False)
        output = CellOutput(1)
        both = backend.add(Side(pending, "max", stride), Side(source, "max", stride), output, 0)
        return backend.concatenate([both], output)

    forward, gradient = TOLERANCES[dtype]
    compare(TRITON, operation, [x], [weight], norm, forward=forward, gradient=gradient)


def test_global_average() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        averages = backend.global_average(backend.convolution(x[0], weights[0], norm))
        return averages.view(3, 40, 1, 1).contiguous(memory_format=torch.channels_last)

    check(operation, [(3, 7, 9, 8)], [torch.randn(40, 7, 1, 1)], norm_of(40), torch.float32)


def test_evaluation_mode_uses_running_statistics_and_leaves_them() -> None:
    norm = new_norm(13).eval()
    for shape in [(2, 9, 5, 4), (1, 9, 1, 1)]:
        check(separable(1), [shape], separable_weights(9, 13, 3), norm, torch.float32)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_momentum_and_count_of_batches(momentum: float | None) -> None:
    x, weight = activation(4, 6, 3, 3), torch.randn(140, 6, 1, 1)
    norms = [nn.BatchNorm2d(140, momentum=momentum) for _ in range(2)]
    for _ in range(3):
        for backend, norm in zip((TRITON, get_backend("eager")), norms, strict=True):
            backend.materialise(backend.convolution(x, weight, norm))
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


def test_statistics_keep_their_digits_far_from_zero() -> None:
    x = activation(4, 4, 16, 16) + 1000.0
    norm = nn.BatchNorm2d(4, momentum=1.0)
    TRITON.materialise(TRITON.convolution(x, torch.eye(4).view(4, 4, 1, 1), norm, rectify=False))
    expected = x.double().var(dim=(0, 2, 3))
    assert norm.running_var is not None
    assert float((norm.running_var.double() - expected).norm() / expected.norm()) < 1e-4


def test_nan_goes_through() -> None:
    x = activation(2, 4, 3, 3)
    x[0, 1, 1, 1] = float("nan")
    out = TRITON.materialise(TRITON.separable(x, *separable_weights(4, 5, 3), nn.BatchNorm2d(5)))
    assert out.isnan().any(dim=(0, 2, 3)).all()
    assert TRITON.materialise(TRITON.pool(x, "max", 1)).isnan().sum() == 9


def test_the_same_bits_twice() -> None:
    x = activation(5, 24, 8, 8).requires_grad_()
    weights = separable_weights(24, 24, 3)
    for weight in weights:
        weight.requires_grad_()
    upstream, found = torch.randn(5, 24, 8, 8), []
    for _ in range(2):
        out = TRITON.materialise(TRITON.separable(x, *weights, nn.BatchNorm2d(24)))
        found.append((out, *torch.autograd.grad(out, [x, *weights], upstream)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_refusals_name_what_was_found_and_what_is_allowed() -> None:
    weights, norm = separable_weights(4, 5, 3), nn.BatchNorm2d(5)
    with pytest.raises(BackendError, match=r"type is torch.float64, allowed is torch.float32 torch.bf"):
        TRITON.separable(activation(2, 4, 3, 3).double(), *weights, norm)
    with pytest.raises(BackendError, match=r"strides \(36, 9, 3, 1\), allowed is NHWC"):
        TRITON.separable(torch.randn(2, 4, 3, 3), *weights, norm)
    with pytest.raises(BackendError, match=rf"device is meta, allowed is {DEVICE}"):
        TRITON.separable(torch.empty(2, 4, 3, 3, device="meta"), *weights, norm)
    with pytest.raises(BackendError, match=r"without affine or running statistics"):
        TRITON.materialise(
            TRITON.separable(activation(2, 4, 3, 3), *weights, nn.BatchNorm2d(5, affine=False))
        )
    with pytest.raises(BackendError, match=r"trained on 1 value per channel, allowed is 2 or more"):
        TRITON.materialise(TRITON.separable(activation(1, 4, 1, 1), *weights, norm))
