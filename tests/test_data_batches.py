"""Batches against a slow oracle that augments one image at a time, and the statistics of augmentation."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pnas_fast.data import DataError, DataSet, batches, batches_per_epoch, load, validation_batches
from pnas_fast.data.dataset import from_arrays


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


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    for images, labels in batches(data, batch, generator=seeded(seed)):
        for image, label in zip(images, labels.tolist(), strict=True):
            assert any(torch.equal(image, crop) for _, crop in crops(data, data.train_images[label]))


def test_every_crop_and_flip_is_equally_likely_and_independent_of_the_image() -> None:
    data = random_set(5, (2, 3, 4), train=6, padding=1)
    generator, epochs = seeded(5), 600
    oracle = [crops(data, image) for image in data.train_images]
    counts: Counter[tuple[int, tuple[int, int, bool]]] = Counter()
    for _ in range(epochs):
        for images, labels in batches(data, 3, generator=generator):
            for image, label in zip(images, labels.tolist(), strict=True):
                counts[label, next(kind for kind, crop in oracle[label] if torch.equal(image, crop))] += 1
    kinds, expected = 6 * 9 * 2, epochs / 18
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert len(counts) == kinds
    assert chi_squared < 6 * 17 + 5 * (2 * 6 * 17) ** 0.5


def test_offsets_of_images_in_one_batch_are_independent() -> None:
    data = random_set(6, (1, 4, 4), train=64, padding=1, flip=True)
    images, labels = next(batches(data, 64, generator=seeded(6)))
    kinds = {
        next(kind for kind, crop in crops(data, data.train_images[label]) if torch.equal(image, crop))
        for image, label in zip(images, labels.tolist(), strict=True)
    }
    assert len(kinds) > 12


@pytest.mark.parametrize(("train", "batch", "sizes"), [(50, 16, [16] * 3), (50, 49, [49]), (50, 50, [50])])
def test_only_whole_batches_and_no_image_twice(train: int, batch: int, sizes: list[int]) -> None:
    data = random_set(7, train=train)
    epoch = list(batches(data, batch, generator=seeded(7)))
    labels = torch.cat([labels for _, labels in epoch]).tolist()
    assert [len(images) for images, _ in epoch] == sizes
    assert len(epoch) == batches_per_epoch(data, batch)
    assert len(set(labels)) == len(labels)
    assert labels != sorted(labels)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    data = random_set(8).subset(5)
    ((images, labels),) = batches(data, 64, generator=seeded(8))
    assert images.shape == (5, 3, 6, 5)
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]
    assert batches_per_epoch(data, 64) == 1


def test_the_same_seed_gives_the_same_bits_and_another_epoch_other_batches() -> None:
    data, generator = random_set(9), seeded(9)
    first, second = list(batches(data, 16, generator=generator)), list(batches(data, 16, generator=generator))
    again = list(batches(data, 16, generator=seeded(9)))
    for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
    assert not any(torch.equal(one[1], other[1]) for one, other in zip(first, second, strict=True))


def test_the_draws_are_made_before_the_first_batch() -> None:
    data, generator, whole = random_set(10), seeded(10), seeded(10)
    batches(data, 16, generator=generator)
    list(batches(data, 16, generator=whole))
    assert torch.equal(generator.get_state(), whole.get_state())


def test_a_batch_stays_what_it_was_when_the_next_is_made() -> None:
    epoch = batches(random_set(11), 16, generator=seeded(11))
    images, _ = next(epoch)
    kept = images.clone()
    next(epoch)
    assert torch.equal(images, kept)


def test_batches_are_float32_channels_last() -> None:
    data = random_set(12)
    for images, labels in (next(batches(data, 8, generator=seeded(12))), next(validation_batches(data, 8))):
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.shape == (8, 3, 6, 5)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_memory_format_of_a_set_does_not_change_its_batches() -> None:
    data = random_set(13)
    planar = replace(
        data,
        train_images=data.train_images.contiguous(),
        validation_images=data.validation_images.contiguous(),
    )
    for one, other in (
        (batches(data, 16, generator=seeded(13)), batches(planar, 16, generator=seeded(13))),
        (validation_batches(data, 16), validation_batches(planar, 16)),
    ):
        for (images, _), (planar_images, _) in zip(one, other, strict=True):
            assert torch.equal(images, planar_images)
            assert planar_images.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_an_epoch_is_normalised() -> None:
    data = replace(load("synthetic:8x8x3/10"), crop_padding=0, flip=False)
    images = torch.cat([images for images, _ in batches(data, 100, generator=seeded(14))]).double()
    assert len(images) == 4500
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_padding_is_the_mean_colour() -> None:
    data = random_set(15, (2, 1, 1), train=40, padding=2)
    images = torch.cat([images for images, _ in batches(data, 8, generator=seeded(15))])
    outside = (images == 0).all(1).float().mean()
    assert outside > 0.8  # 24 of the 25 offsets miss a 1×1 image


def test_validation_batches_are_all_images_in_order_without_augmentation() -> None:
    data = random_set(16)
    parts = list(validation_batches(data, 8))
    assert [len(images) for images, _ in parts] == [8, 8, 4]
    expected = (data.validation_images.double() - data.mean.double()[:, None, None]) / data.std.double()[
        :, None, None
    ]
    torch.testing.assert_close(torch.cat([images for images, _ in parts]), expected.float())
    assert torch.equal(torch.cat([labels for _, labels in parts]), data.validation_labels)


@pytest.mark.parametrize("batch", [0, -3])
def test_an_impossible_batch_is_refused_at_once(batch: int) -> None:
    data = random_set(17)
    with pytest.raises(DataError, match=f"batch of {batch} images, allowed are 1 or more"):
        batches(data, batch, generator=seeded(17))
    with pytest.raises(DataError, match=f"batch of {batch} images, allowed are 1 or more"):
        validation_batches(data, batch)
