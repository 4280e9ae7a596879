"""Batches against a slow oracle that augments one image at a time, and the statistics of augmentation."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pnas_fast.data import DataError, DataSet, TrainingBatches, ValidationBatches, load
from pnas_fast.data.dataset import from_arrays
from pnas_fast.data.draws import Key, key_of, random_words


def random_set(
    seed: int,
    shape: tuple[int, int, int] = (3, 6, 5),
    *,
    train: int = 50,
    padding: int = 2,
    flip: bool = True,
) -> DataSet:
    random = np.random.default_rng(seed)
    channels, height, width = shape
    images = random.integers(0, 256, (train + 20, height, width, channels), dtype=np.uint8)
    # Labels number the images, so that a batch tells which images it was made from.
    return from_arrays(
        "numbered", train + 20, images, np.arange(train + 20), validation=20, crop_padding=padding, flip=flip
    )


def epoch_of(batches: TrainingBatches, epoch: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [batches.batch(epoch, index) for index in range(len(batches))]


def crops(data: DataSet, image: torch.Tensor) -> list[tuple[tuple[int, int, bool], torch.Tensor]]:
    """Every crop of one uint8 image, pixel by pixel: ((down, right, mirrored), float32 image)."""
    channels, height, width = data.image_shape
    padding = data.crop_padding
    found = []
    for mirrored in (False, True) if data.flip else (False,):
        for down in range(2 * padding + 1):
            for right in range(2 * padding + 1):
                crop = torch.zeros(channels, height, width)
                for y in range(height):
                    for x in range(width):
                        from_y, from_x = y + down - padding, x + right - padding
                        if 0 <= from_y < height and 0 <= from_x < width:
                            to_x = width - 1 - x if mirrored else x
                            level = image[:, from_y, from_x].float()
                            crop[:, y, to_x] = (level - data.mean) / data.std
                found.append(((down, right, mirrored), crop))
    return found


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    channels=st.integers(1, 4),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    padding=st.integers(0, 2),
    flip=st.booleans(),
    batch=st.integers(1, 9),
)
def test_every_image_of_an_epoch_is_exactly_one_of_its_crops(
    seed: int, channels: int, height: int, width: int, padding: int, flip: bool, batch: int
) -> None:
    data = random_set(seed, (channels, height, width), train=12, padding=padding, flip=flip)
    for images, labels in epoch_of(TrainingBatches(data, batch, seed)):
        for image, label in zip(images, labels.tolist(), strict=True):
            assert any(torch.equal(image, crop) for _, crop in crops(data, data.train_images[label]))


def test_every_crop_and_flip_is_equally_likely_and_independent_of_the_image() -> None:
    data = random_set(5, (2, 3, 4), train=6, padding=1)
    batches, epochs = TrainingBatches(data, 3, 5), 600
    oracle = [crops(data, image) for image in data.train_images]
    counts: Counter[tuple[int, tuple[int, int, bool]]] = Counter()
    for epoch in range(epochs):
        for images, labels in epoch_of(batches, epoch):
            for image, label in zip(images, labels.tolist(), strict=True):
                counts[label, next(kind for kind, crop in oracle[label] if torch.equal(image, crop))] += 1
    kinds, expected = 6 * 9 * 2, epochs / 18
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert len(counts) == kinds
    assert chi_squared < 6 * 17 + 5 * (2 * 6 * 17) ** 0.5


def test_every_order_is_equally_likely() -> None:
    data = random_set(5, (1, 1, 1), train=4, padding=0, flip=False)
    batches, epochs = TrainingBatches(data, 4, 3), 2400
    counts = Counter(tuple(batches.batch(epoch, 0)[1].tolist()) for epoch in range(epochs))
    expected = epochs / 24
    assert len(counts) == 24
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 23 + 5 * 46**0.5


def test_offsets_of_images_in_one_batch_are_independent() -> None:
    data = random_set(6, (1, 4, 4), train=64, padding=1, flip=True)
    images, labels = TrainingBatches(data, 64, 6).batch(0, 0)
    kinds = {
        next(kind for kind, crop in crops(data, data.train_images[label]) if torch.equal(image, crop))
        for image, label in zip(images, labels.tolist(), strict=True)
    }
    assert len(kinds) > 12


@pytest.mark.parametrize(("train", "batch", "sizes"), [(50, 16, [16] * 3), (50, 49, [49]), (50, 50, [50])])
def test_only_whole_batches_and_no_image_twice(train: int, batch: int, sizes: list[int]) -> None:
    batches = TrainingBatches(random_set(7, train=train), batch, 7)
    epoch = epoch_of(batches)
    labels = torch.cat([labels for _, labels in epoch]).tolist()
    assert [len(images) for images, _ in epoch] == sizes
    assert len(set(labels)) == len(labels)
    assert labels != sorted(labels)
    with pytest.raises(IndexError, match=f"batch {len(sizes)} of an epoch of {len(sizes)}"):
        batches.batch(0, len(sizes))


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    batches = TrainingBatches(random_set(8).subset(5), 64, 8)
    ((images, labels),) = epoch_of(batches)
    assert images.shape == (5, 3, 6, 5)
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]


def test_any_batch_can_be_made_again_and_no_two_are_alike() -> None:
    data = random_set(9)
    batches = TrainingBatches(data, 16, 2**62 + 9, cutout=3)
    first = {(epoch, index): batches.batch(epoch, index) for epoch in (0, 1) for index in range(3)}
    again = TrainingBatches(data, 16, 2**62 + 9, cutout=3)
    for (epoch, index), (images, labels) in reversed(first.items()):
        same, same_labels = again.batch(epoch, index)
        assert torch.equal(images, same)
        assert torch.equal(labels, same_labels)
    assert len({float(images.double().sum()) for images, _ in first.values()}) == 6
    other, _ = TrainingBatches(data, 16, 2**61 + 9, cutout=3).batch(0, 0)
    assert not torch.equal(other, first[0, 0][0])


def mix(x: int) -> int:
    """The generator's step as C would do it, on unsigned numbers of 32 bits."""
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ x >> 15


@given(first=st.integers(0, 2**32 - 1), second=st.integers(0, 2**32 - 1), counter=st.integers(0, 2**32 - 1))
def test_random_words_are_those_of_unsigned_arithmetic(first: int, second: int, counter: int) -> None:
    expected = mix(mix(counter ^ first) ^ second)
    assert int(random_words(Key(first, second), torch.tensor(counter))) == expected


def test_an_order_is_what_it_is_defined_as() -> None:
    """Any other definition would show a run that goes on with a newer version batches it has seen."""
    digest = hashlib.blake2b(b"7 3 order", digest_size=8).digest()
    first, second = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
    order = sorted(range(50), key=lambda image: mix(mix(image ^ first) ^ second))
    _, labels = TrainingBatches(random_set(9), 6, 7).batch(3, 2)
    assert labels.tolist() == order[12:18]


def test_random_words_are_spread_evenly_and_independent_of_each_other() -> None:
    words = [random_words(key_of("test", place), torch.arange(4096)) for place in range(16)]
    bits = torch.stack([(words[place] >> bit & 1).double() for place in range(16) for bit in range(32)])
    assert all(len(set(row.tolist())) == 4096 for row in words)
    assert (bits.mean(1) - 0.5).abs().max() < 5 * 0.5 / 64
    # 131,328 correlations, each with standard deviation 1 / 64.
    correlations = torch.corrcoef(torch.cat([bits[:, :-1], bits[:, 1:]])).fill_diagonal_(0)
    assert correlations.abs().max() < 6 / 64


def test_shares_are_the_batch_side_by_side() -> None:
    data = random_set(10)
    whole, labels = TrainingBatches(data, 24, 7, cutout=3).batch(1, 1)
    parts = [TrainingBatches(data, 24, 7, cutout=3, share=(rank, 3)).batch(1, 1) for rank in range(3)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)
    with pytest.raises(DataError, match="batch of 24 images for 5 processes, allowed are multiples of 5"):
        TrainingBatches(data, 24, 7, share=(0, 5))


def test_a_batch_stays_what_it_was_when_the_next_is_made() -> None:
    batches = TrainingBatches(random_set(11), 16, 11)
    images, _ = batches.batch(0, 0)
    kept = images.clone()
    batches.batch(0, 1)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_batches_are_channels_last_and_rounded_once(dtype: torch.dtype) -> None:
    data = random_set(12)
    for made, full in (
        (TrainingBatches(data, 8, 12, dtype=dtype).batch(0, 0), TrainingBatches(data, 8, 12).batch(0, 0)),
        (next(iter(ValidationBatches(data, 8, dtype=dtype))), next(iter(ValidationBatches(data, 8)))),
    ):
        images, labels = made
        assert (images.dtype, labels.dtype) == (dtype, torch.int64)
        assert images.shape == (8, 3, 6, 5)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, full[0].to(dtype))


def test_the_memory_format_of_a_set_does_not_change_its_batches() -> None:
    data = random_set(13)
    planar = replace(
        data,
        train_images=data.train_images.contiguous(),
        validation_images=data.validation_images.contiguous(),
    )
    for one, other in (
        (epoch_of(TrainingBatches(data, 16, 13)), epoch_of(TrainingBatches(planar, 16, 13))),
        (list(ValidationBatches(data, 16)), list(ValidationBatches(planar, 16))),
    ):
        for (images, _), (planar_images, _) in zip(one, other, strict=True):
            assert torch.equal(images, planar_images)
            assert planar_images.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_an_epoch_is_normalised() -> None:
    data = replace(load("synthetic:8x8x3/10"), crop_padding=0, flip=False)
    images = torch.cat([images for images, _ in epoch_of(TrainingBatches(data, 100, 14))]).double()
    assert len(images) == 4500
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_padding_is_the_mean_colour() -> None:
    data = random_set(15, (2, 1, 1), train=40, padding=2)
    images = torch.cat([images for images, _ in epoch_of(TrainingBatches(data, 8, 15))])
    outside = (images == 0).all(1).float().mean()
    assert outside > 0.8  # 24 of the 25 offsets miss a 1×1 image


@pytest.mark.parametrize("side", [1, 4, 5, 30])
def test_cutout_blanks_a_square_out_cut_off_at_the_border(side: int) -> None:
    data = random_set(16, (3, 8, 10), train=100)
    with_square, without = (
        TrainingBatches(data, 100, 0, cutout=cutout).batch(0, 0)[0] for cutout in (side, 0)
    )
    before = (without == 0).all(1)
    blank = (with_square == 0).all(1)
    assert torch.equal(
        with_square[~blank[:, None].expand_as(without)], without[~blank[:, None].expand_as(without)]
    )
    whole = ~before.any(2).any(1)  # images whose crop shows no padding: there every zero is the square's
    rows, columns = blank[whole].any(2).sum(1), blank[whole].any(1).sum(1)
    assert len(rows) > 2
    assert torch.equal(blank[whole].sum((1, 2)), rows * columns)
    least = min(side - side // 2, side // 2 + 1)
    assert min(least, 8) <= int(rows.min()) <= int(rows.max()) <= min(side, 8)
    assert min(least, 10) <= int(columns.min()) <= int(columns.max()) <= min(side, 10)


def test_validation_batches_are_all_images_in_order_without_augmentation() -> None:
    data = random_set(16)
    parts = list(ValidationBatches(data, 8))
    assert len(parts) == len(ValidationBatches(data, 8)) == 3
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    expected = (data.validation_images.double() - data.mean.double()[:, None, None]) / data.std.double()[
        :, None, None
    ]
    torch.testing.assert_close(images[:20], expected.float())
    assert torch.equal(labels[:20], data.validation_labels)
    assert labels[20:].tolist() == [-1] * 4
    assert torch.equal(images[20:], images[19:20].expand(4, -1, -1, -1))


@pytest.mark.parametrize("batch", [0, -3])
def test_an_impossible_batch_is_refused_at_once(batch: int) -> None:
    data = random_set(17)
    with pytest.raises(DataError, match=f"batch of {batch} images, allowed are 1 or more"):
        TrainingBatches(data, batch, 17)
    with pytest.raises(DataError, match=f"batch of {batch} images, allowed are 1 or more"):
        ValidationBatches(data, batch)
    with pytest.raises(DataError, match="cutout of -1 pixels, allowed are 0 or more"):
        TrainingBatches(data, 8, 17, cutout=-1)
