"""Loading by name, the DataSet value, digits and synthetic images."""

import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pnas_fast.data import DataError, DataSet, fashion, load, source, synthetic
from pnas_fast.data.dataset import from_arrays, shuffled_places
from pnas_fast.data.digest import digest
from pnas_fast.data.digest import test_digest as digest_of_tests
from pnas_fast.data.source import Description
from pnas_fast.data.source import described as described_by


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits")


def random_set(**changes: object) -> DataSet:
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    data = from_arrays(
        "made up", 4, images, random.integers(0, 4, 40), validation=10, crop_padding=1, flip=True
    )
    values = {name: getattr(data, name) for name in DataSet.__dataclass_fields__} | changes
    return DataSet(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["", "digit", "digits:8", "cifar10", "mnist", "synthetic2:8x8x1/2"])
def test_an_unknown_spec_is_refused_with_what_is_allowed(spec: str) -> None:
    with pytest.raises(
        DataError, match=r"allowed are digits, fashion, cifar10:DIR, .* and synthetic"
    ) as caught:
        load(spec)
    assert repr(spec) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fashion_has_the_documented_parts_of_each_class_as_many() -> None:
    data = load("fashion")
    described = source("fashion").describe()
    assert described == described_by(data) == Description(10, (1, 14, 14), 8_000, 5_000, 5_000)
    for labels in (data.train_labels, data.validation_labels, data.test_labels):
        assert labels is not None
        assert set(labels.bincount(minlength=10).tolist()) == {len(labels) // 10}
    images = [
        part for part in (data.train_images, data.validation_images, data.test_images) if part is not None
    ]
    assert len({image.numpy().tobytes() for part in images for image in part}) > 17_900


def test_fashion_s_files_stay_small_and_name_their_licence() -> None:
    assert fashion.FILE.stat().st_size <= 2_500_000
    assert "MIT License" in fashion.FILE.with_name("fashion.license").read_text(encoding="utf-8")


def test_a_test_part_takes_the_validation_part_s_place_and_no_other() -> None:
    data = load("fashion")
    tested = data.tested()
    assert data.test_images is not None
    assert torch.equal(tested.validation_images, data.test_images)
    assert torch.equal(tested.train_images, data.train_images)
    assert torch.equal(tested.mean, data.mean)
    with pytest.raises(DataError, match=r"^digits: has no test images$"):
        load("digits").tested()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_images": torch.zeros((2, 3, 6, 5), dtype=torch.uint8)}, "test images or labels alone"),
        (
            {
                "test_images": torch.zeros((2, 3, 5, 5), dtype=torch.uint8),
                "test_labels": torch.zeros(2, dtype=torch.int64),
            },
            "test images are torch.uint8 of shape",
        ),
        (
            {
                "test_images": torch.zeros((2, 3, 6, 5), dtype=torch.uint8),
                "test_labels": torch.full((2,), 4),
            },
            "test labels run from 4 to 4, allowed are 0 to 3",
        ),
    ],
)
def test_a_test_part_is_checked_like_the_others(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        random_set(**changes)


def test_test_images_are_no_part_of_what_choices_see_and_have_a_digest_of_their_own() -> None:
    plain = random_set()
    images, labels = torch.zeros((2, 3, 6, 5), dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    tests = random_set(test_images=images, test_labels=labels)
    others = random_set(test_images=images + 1, test_labels=labels)
    renamed = random_set(test_images=images, test_labels=labels + 1)
    assert len({digest(data) for data in (plain, tests, others, renamed)}) == 1
    assert len({digest_of_tests(data) for data in (tests, others, renamed)}) == 3
    with pytest.raises(DataError, match="has no test images"):
        digest_of_tests(plain)


def test_digits_have_the_documented_shape_and_split(digits: DataSet) -> None:
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.validation_images.shape == (360, 1, 8, 8)
    assert digits.image_shape == (1, 8, 8)
    assert (digits.classes, digits.crop_padding, digits.flip) == (10, 1, False)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_labels.dtype == torch.int64


def test_digits_keep_their_labels_and_every_image_is_used_once(digits: DataSet) -> None:
    bunch = load_digits()
    expected = sorted((image.tobytes(), label) for image, label in zip(bunch.data, bunch.target, strict=True))
    pixels = torch.cat([digits.train_images, digits.validation_images]).reshape(-1, 64)
    restored = np.rint(pixels.numpy() * (16 / 255))
    labels = torch.cat([digits.train_labels, digits.validation_labels]).tolist()
    assert sorted((image.tobytes(), label) for image, label in zip(restored, labels, strict=True)) == expected


def test_digits_use_the_whole_range_of_grey_levels(digits: DataSet) -> None:
    assert digits.train_images.unique().tolist() == [round(level * 255 / 16) for level in range(17)]


def test_the_split_is_shuffled_and_fixed(digits: DataSet) -> None:
    again = load("digits")
    assert torch.equal(again.train_images, digits.train_images)
    assert torch.equal(again.validation_labels, digits.validation_labels)
    places = shuffled_places(1797)
    assert sorted(places) == list(range(1797))
    assert abs(np.corrcoef(places, np.arange(1797))[0, 1]) < 0.1


def test_the_split_never_changes() -> None:
    # RandomState's stream is frozen, so these figures hold on every machine.
    assert shuffled_places(8).tolist() == [0, 4, 5, 1, 6, 2, 7, 3]


@pytest.mark.parametrize("spec", ["digits", "synthetic:9x7x2/3", "synthetic:32x32x3/10"])
def test_statistics_are_those_of_the_training_images(spec: str) -> None:
    data = load(spec)
    pixels = data.train_images.double()
    assert data.mean.dtype == data.std.dtype == torch.float32
    torch.testing.assert_close(data.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, pixels.std((0, 2, 3), correction=0).float())


def test_a_constant_channel_has_standard_deviation_one() -> None:
    images = np.full((4, 2, 2, 1), 9, np.uint8)
    data = from_arrays("grey", 2, images, np.array([0, 1, 0, 1]), validation=1, crop_padding=0, flip=False)
    assert (data.mean.tolist(), data.std.tolist()) == ([9.0], [1.0])


def test_a_subset_is_the_first_training_images(digits: DataSet) -> None:
    part = digits.subset(100)
    assert torch.equal(part.train_images, digits.train_images[:100])
    assert torch.equal(part.train_labels, digits.train_labels[:100])
    assert part.validation_images is digits.validation_images
    assert torch.equal(part.mean, digits.mean)
    assert len(part.train_labels.unique()) == 10
    assert len(digits.subset(1437).train_labels) == 1437


@pytest.mark.parametrize("images", [-1, 0, 1438])
def test_an_impossible_subset_is_refused(digits: DataSet, images: int) -> None:
    with pytest.raises(DataError, match=rf"{images} training images asked for, allowed are 1 to 1437"):
        digits.subset(images)


def test_to_moves_every_tensor_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_set()
    # There is no second device here, so a moved tensor is marked by reversing it.
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device: tensor.flip(0) if device == "other" else tensor
    )
    moved = data.to("other")
    for name in DataSet.__dataclass_fields__:
        value, other = getattr(data, name), getattr(moved, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(other, value.flip(0)), name
        else:
            assert other == value, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": torch.zeros(30, 3, 6, 5)},
            "training images are torch.float32 of shape (30, 3, 6, 5)",
        ),
        (
            {"train_images": torch.zeros(30, 90, dtype=torch.uint8)},
            "expected torch.uint8 of shape (n, C, H, W)",
        ),
        ({"validation_images": torch.zeros(0, 3, 6, 5, dtype=torch.uint8)}, "none of them 0"),
        ({"validation_images": torch.zeros(10, 3, 5, 6, dtype=torch.uint8)}, "(n, C, H, W) = (n, 3, 6, 5)"),
        ({"train_labels": torch.zeros(29, dtype=torch.int64)}, "expected torch.int64 of shape (30,)"),
        ({"train_labels": torch.zeros(30)}, "training labels are torch.float32 of shape (30,)"),
        ({"classes": 3}, "labels run from 0 to 3, allowed are 0 to 2"),
        ({"train_labels": torch.full((30,), -1)}, "labels run from -1 to -1, allowed are 0 to 3"),
        ({"mean": torch.zeros(1)}, "mean has shape (1,), expected (3,)"),
        ({"std": torch.ones(3, 1)}, "std has shape (3, 1), expected (3,)"),
        ({"std": torch.zeros(3)}, "std is [0.0, 0.0, 0.0], allowed is more than 0"),
        ({"crop_padding": -1}, "crop padding of -1 pixels, allowed are 0 or more"),
    ],
)
def test_a_data_set_that_does_not_fit_together_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        random_set(**changes)
    assert str(caught.value).startswith("made up: ")
    assert "\n" not in str(caught.value)


def test_synthetic_sets_have_the_size_asked_for() -> None:
    data = load("synthetic:13x9x4/7")
    assert data.image_shape == (4, 13, 9)
    assert (len(data.train_labels), len(data.validation_labels)) == (4500, 500)
    assert data.classes == 7
    assert data.train_labels.bincount().tolist() == [643] * 6 + [642]
    assert (data.crop_padding, data.flip) == (1, True)
    assert load("synthetic:32x32x3/10").crop_padding == 4


def test_large_synthetic_images_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "MOST_BYTES", 2**21)
    data = load("synthetic:64x64x3/2")
    assert (len(data.train_labels), len(data.validation_labels)) == (153, 17)  # 2²¹ / (64 · 64 · 3) = 170.7


def test_the_largest_synthetic_image_allowed_still_makes_a_set() -> None:
    assert synthetic.MOST_BYTES // (512 * 512 * 16) >= 10


def test_a_synthetic_set_is_the_same_each_time_and_no_image_repeats() -> None:
    data, again = load("synthetic:8x8x3/10"), load("synthetic:8x8x3/10")
    assert torch.equal(data.train_images, again.train_images)
    assert torch.equal(data.validation_images, again.validation_images)
    images = torch.cat([data.train_images, data.validation_images])
    assert len({image.numpy().tobytes() for image in images}) == 5000


@pytest.mark.parametrize("spec", ["synthetic:8x8x1/10", "synthetic:32x32x3/10"])
def test_synthetic_classes_can_be_learned(spec: str) -> None:
    data = load(spec)
    size = data.train_images[0].numel()

    def features(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.float().reshape(-1, size) / 255 - 0.5, torch.ones(len(images), 1)], 1)

    train = features(data.train_images)
    targets = torch.nn.functional.one_hot(data.train_labels, data.classes).float()
    weights = torch.linalg.solve(train.T @ train + 10 * torch.eye(size + 1), train.T @ targets)
    guesses = (features(data.validation_images) @ weights).argmax(1)
    assert (guesses == data.validation_labels).float().mean() > 0.5


@pytest.mark.parametrize(
    "argument", ["", "32x32/10", "32x32x3", "32x32x3/", "-1x8x1/2", "8x8x1/2 ", "8X8X1/2", "٣x8x1/2"]
)
def test_a_malformed_synthetic_spec_is_refused(argument: str) -> None:
    with pytest.raises(DataError, match=r"is malformed, expected synthetic:HxWxC/CLASSES") as caught:
        load(f"synthetic:{argument}")
    assert f"'synthetic:{argument}'" in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("0x8x1/2", "height 0, allowed are 1 to 512"),
        ("8x513x1/2", "width 513, allowed are 1 to 512"),
        ("8x8x17/2", "channels 17, allowed are 1 to 16"),
        ("8x8x1/1", "classes 1, allowed are 2 to 1000"),
        ("8x8x1/1001", "classes 1001, allowed are 2 to 1000"),
    ],
)
def test_a_synthetic_size_out_of_range_is_refused(argument: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load(f"synthetic:{argument}")
