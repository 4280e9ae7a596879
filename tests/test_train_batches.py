"""Batches of a long training: made again from (seed, epoch, index), shared evenly, augmented as they say."""

from dataclasses import replace

import pytest
import torch

from pnas_fast.data import DataSet, load
from pnas_fast.data.batches import normalise
from pnas_fast.train.batches import TrainingBatches

DATA = load("synthetic:8x10x3/10").subset(100)


def plain(data: DataSet) -> DataSet:
    return replace(data, crop_padding=0, flip=False)


def test_any_batch_can_be_made_again_and_no_two_are_alike() -> None:
    batches = TrainingBatches(DATA, 24, 7, cutout=3)
    assert len(batches) == 4
    first = {(e, i): batches.batch(e, i) for e in (0, 1) for i in range(4)}
    again = TrainingBatches(DATA, 24, 7, cutout=3)
    for (epoch, index), (images, labels) in reversed(first.items()):
        same, same_labels = again.batch(epoch, index)
        assert torch.equal(images, same)
        assert torch.equal(labels, same_labels)
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert len({float(images.double().sum()) for images, _ in first.values()}) == 8
    other, _ = TrainingBatches(DATA, 24, 8, cutout=3).batch(0, 0)
    assert not torch.equal(other, first[0, 0][0])


def test_shares_are_the_batch_side_by_side() -> None:
    whole, labels = TrainingBatches(DATA, 24, 7, cutout=3).batch(1, 2)
    parts = [TrainingBatches(DATA, 24, 7, cutout=3, share=(rank, 3)).batch(1, 2) for rank in range(3)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


def test_an_epoch_shows_every_image_once() -> None:
    data = plain(DATA)
    batches = TrainingBatches(data, 25, 0)
    shown = torch.cat([batches.batch(3, index)[0] for index in range(4)]).flatten(1)
    expected = normalise(data, data.train_images).flatten(1)
    order = torch.cdist(shown, expected).argmin(1)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(shown, expected[order])


def test_crops_and_flips_are_all_windows_of_the_padded_image() -> None:
    data = replace(DATA.subset(1), crop_padding=1)
    padded = torch.nn.functional.pad(normalise(data, data.train_images), (1, 1, 1, 1))
    windows = [padded[:, :, top : top + 8, left : left + 10] for top in range(3) for left in range(3)]
    windows += [window.flip(3) for window in windows]
    batches, seen = TrainingBatches(data, 1, 0), set()
    for epoch in range(300):
        image, _ = batches.batch(epoch, 0)
        (place,) = [index for index, window in enumerate(windows) if torch.equal(window, image)]
        seen.add(place)
    assert seen == set(range(18))


@pytest.mark.parametrize("side", [1, 4, 5, 30])
def test_cutout_blanks_a_square_out_cut_off_at_the_border(side: int) -> None:
    data = plain(DATA)
    drawn = [TrainingBatches(data, 100, 0, cutout=cutout).batch(0, 0)[0] for cutout in (side, 0)]
    with_square, without = drawn
    blank = (with_square == 0).all(1)
    kept = ~blank[:, None].expand_as(without)
    assert torch.equal(with_square[kept], without[kept])
    rows, columns = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(blank.sum((1, 2)), rows * columns)
    assert int(rows.max()) == min(side, 8)
    assert int(columns.max()) == min(side, 10)
    least = min(side - side // 2, side // 2 + 1)
    assert int(rows.min()) >= min(least, 8)
    assert int(columns.min()) >= min(least, 10)
