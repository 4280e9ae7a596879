"""The eager backend against loops that follow the definitions."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from pnas_fast.kernels import BackendError, CellOutput, PoolKind, Side, get_backend, resolve_backend
from pnas_fast.kernels.eager import same_padding

EAGER = get_backend("eager")
SIZES = [(8, 8), (13, 13), (1, 1), (2, 3), (5, 8)]


def windows(size: int, kernel: int, stride: int, dilation: int = 1) -> list[list[tuple[int, int]]]:
    """For each SAME output: the (tap, input) pairs that fall inside."""
    outputs = -(-size // stride)
    reach = (kernel - 1) * dilation + 1
    before = max((outputs - 1) * stride + reach - size, 0) // 2
    return [
        [
            (tap, place)
            for tap in range(kernel)
            if 0 <= (place := output * stride - before + tap * dilation) < size
        ]
        for output in range(outputs)
    ]


def convolve(
    x: Tensor, weight: Tensor, stride: tuple[int, int], dilation: int = 1, groups: int = 1
) -> Tensor:
    rows = windows(x.shape[2], weight.shape[2], stride[0], dilation)
    columns = windows(x.shape[3], weight.shape[3], stride[1], dilation)
    out = torch.zeros(x.shape[0], weight.shape[0], len(rows), len(columns), dtype=x.dtype)
    full = torch.zeros(weight.shape[0], x.shape[1], *weight.shape[2:], dtype=x.dtype)
    for f in range(weight.shape[0]):
        inputs = weight.shape[1]
        start = f // (weight.shape[0] // groups) * inputs
        full[f, start : start + inputs] = weight[f]
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        for (u, y), (v, z) in itertools.product(row, column):
            out[:, :, i, j] += x[:, :, y, z] @ full[:, :, u, v].T
    return out


def pooled(x: Tensor, kind: str, stride: int) -> Tensor:
    rows, columns = windows(x.shape[2], 3, stride), windows(x.shape[3], 3, stride)
    out = x.new_zeros(*x.shape[:2], len(rows), len(columns))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        inside = torch.stack([x[:, :, y, z] for (_, y), (_, z) in itertools.product(row, column)])
        out[:, :, i, j] = inside.amax(0) if kind == "max" else inside.mean(0)
    return out


def normalised(z: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = z.mean((0, 2, 3), keepdim=True)
    variance = z.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
    return (z - mean) / torch.sqrt(variance + norm.eps) * scale + shift


def new_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def images(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(3, channels, *size, dtype=torch.float64)


def weight(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded() -> None:
    # Fresh inputs each time; a failure shows with what they can be had again.
    print("torch.manual_seed", torch.seed())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (7, 1), (3, 2)])
def test_separable(size: tuple[int, int], stride: int, kernel: int, dilation: int) -> None:
    x, depthwise, pointwise, norm = (
        images(4, size),
        weight(4, 1, kernel, kernel),
        weight(6, 4, 1, 1),
        new_norm(6),
    )
    got = EAGER.separable(x, depthwise, pointwise, norm, stride=stride, dilation=dilation)
    spread = convolve(x.relu(), depthwise, (stride, stride), dilation, groups=4)
    torch.testing.assert_close(got, normalised(convolve(spread, pointwise, (1, 1)), norm))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 1), (2, 2)), ((1, 7), (1, 2)), ((7, 1), (2, 1)), ((3, 3), (1, 1))]
)
def test_convolution(
    size: tuple[int, int], rectify: bool, kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    x, w, norm = images(4, size), weight(5, 4, *kernel), new_norm(5)
    z = convolve(x.relu() if rectify else x, w, stride)
    torch.testing.assert_close(EAGER.convolution(x, w, None, stride=stride, rectify=rectify), z)
    got = EAGER.convolution(x, w, norm, stride=stride, rectify=rectify)
    torch.testing.assert_close(got, normalised(z, norm))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rectify", [True, False])
def test_factorized_reduction(size: tuple[int, int], rectify: bool) -> None:
    x, even, odd, norm = images(4, size), weight(2, 4, 1, 1), weight(3, 4, 1, 1), new_norm(5)
    rectified = x.relu() if rectify else x
    shifted = torch.zeros_like(rectified)
    shifted[:, :, :-1, :-1] = rectified[:, :, 1:, 1:]
    z = torch.cat([convolve(rectified, even, (2, 2)), convolve(shifted, odd, (2, 2))], dim=1)
    got = EAGER.factorized_reduction(x, even, odd, norm, rectify=rectify)
    torch.testing.assert_close(got, normalised(z, norm))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_pool(size: tuple[int, int], stride: int, kind: PoolKind) -> None:
    x = images(3, size)
    torch.testing.assert_close(EAGER.pool(x, kind, stride), pooled(x, kind, stride))


def test_add_pools_and_scales_its_sides() -> None:
    x, y = images(3, (8, 8)), images(3, (4, 4))
    keep = torch.tensor([0.0, 2.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    got = EAGER.add(Side(x, "max", 2, keep), Side(y), CellOutput(1), 0)
    torch.testing.assert_close(got, pooled(x, "max", 2) * keep + y)


def test_same_padding_puts_the_odd_pixel_after() -> None:
    assert same_padding(42, 3, 2) == (0, 1)
    assert same_padding(42, 5, 2) == (1, 2)
    assert same_padding(42, 7, 2) == (2, 3)
    assert same_padding(41, 7, 2) == (3, 3)
    assert same_padding(1, 1, 2) == (0, 0)


def test_auto_is_the_best_backend_of_a_device_and_unknown_ones_are_refused() -> None:
    assert resolve_backend("auto", "cpu") == "cpu"
    assert resolve_backend("eager", "cuda") == "eager"
    assert resolve_backend("auto", "cuda") == "triton"
    with pytest.raises(BackendError, match="'fast' on cpu: allowed are auto cpu eager"):
        resolve_backend("fast", "cpu")
    with pytest.raises(BackendError, match="'auto': allowed are eager cpu triton"):
        get_backend("auto")
