"""The pass that makes a batch: of C++ and of Triton, bit for bit as in plain PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pnas_fast.kernels.augment import augment, augment_eager
from pnas_fast.kernels.cpu import augment as augment_cpu
from pnas_fast.kernels.triton.augment import augment as augment_triton
from pnas_fast.threads import torch_threads
from where_triton_runs import DEVICE

Case = tuple[Tensor, Tensor, Tensor, int, int]


def case(
    seed: int, shape: tuple[int, ...], batch: int, padding: int, cutout: int, dtype: torch.dtype
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def draw(values: int, *size: int) -> Tensor:
        return torch.randint(values, size, generator=generator)

    count, channels, height, width = shape
    images = draw(256, count, height, width, channels).to(torch.uint8).permute(0, 3, 1, 2)
    ranges = (count, 2 * padding + 1, 2 * padding + 1, 2, height, width)
    rows = torch.stack([draw(values, batch) for values in ranges], dim=1).to(torch.int32)
    table = torch.randn(channels, 256, generator=generator).to(dtype)
    return images, rows, table, padding, cutout


def poisoned(images: Tensor, rows: Tensor, table: Tensor) -> Tensor:
    out = torch.full((len(rows), *images.shape[1:]), float("nan"), dtype=table.dtype)
    return out.contiguous(memory_format=torch.channels_last)


def assert_same_bits(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == expected.dtype
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got, expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    batch=st.integers(1, 9),
    padding=st.integers(0, 4),
    cutout=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    threads=st.integers(1, 2),
)
def test_compiled(
    seed: int,
    shape: tuple[int, int, int, int],
    batch: int,
    padding: int,
    cutout: int,
    dtype: torch.dtype,
    threads: int,
) -> None:
    given = case(seed, shape, batch, padding, cutout, dtype)
    out = poisoned(*given[:3])
    with torch_threads(threads):
        augment_cpu(*given, out)
    assert_same_bits(out, augment_eager(*given))
    assert_same_bits(augment(*given), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "padding", "cutout"), [((5, 3, 20, 18), 4, 7), ((3, 1, 3, 2), 2, 0)])
def test_triton(shape: tuple[int, int, int, int], padding: int, cutout: int, dtype: torch.dtype) -> None:
    images, rows, table, _, _ = case(5, shape, 4, padding, cutout, dtype)
    out = poisoned(images, rows, table).to(DEVICE)
    augment_triton(images.to(DEVICE), rows.to(DEVICE), table.to(DEVICE), padding, cutout, out)
    assert_same_bits(out.cpu(), augment_eager(images, rows, table, padding, cutout))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_triton_on_a_card(dtype: torch.dtype) -> None:
    images, rows, table, padding, cutout = case(6, (50, 3, 32, 32), 128, 4, 16, dtype)
    got = augment(images.cuda(), rows.cuda(), table.cuda(), padding, cutout)
    assert_same_bits(got.cpu(), augment_eager(images, rows, table, padding, cutout))
