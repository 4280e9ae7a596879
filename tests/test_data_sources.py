"""Sources of data: the registry, what is known before pixels are read, reading once, identity, arrays."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.data import (
    DataError,
    DataSet,
    as_source,
    cifar10,
    digest,
    fetchable,
    forms,
    load,
    source,
    sources,
)
from pnas_fast.data.dataset import from_arrays
from pnas_fast.data.source import Description, described
from pnas_fast.protocols import DataSource
from test_data_cifar10 import NAMES, write_records


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 of 20 records a file."""
    monkeypatch.setattr(cifar10, "RECORDS", 20)
    place = tmp_path / "one"
    place.mkdir()
    write_records(place, 20, seed=2)
    return place


def arrays(count: int = 40, *, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    return random.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8), labels


def made(**changes: object) -> DataSet:
    images, labels = arrays()
    data = from_arrays("made up", 4, images, labels, validation=10, crop_padding=1, flip=True)
    return replace(data, **changes)  # type: ignore[arg-type]


# What is known before pixels are read.


@pytest.mark.parametrize("spec", ["digits", "synthetic:13x9x4/7", "synthetic:512x256x3/2"])
def test_a_description_is_that_of_the_opened_data_set(spec: str) -> None:
    found: DataSource = source(spec)
    assert found.name == spec
    assert source(spec).describe() == described(found.open())


def test_cifar10_is_described_without_its_files(folder: Path) -> None:
    found = source(f"cifar10:{folder}")
    before = found.describe()
    assert before == source("cifar10:/nowhere").describe() == described(found.open())


def test_the_real_cifar10_has_the_documented_size() -> None:
    found = source("cifar10:/nowhere").describe()
    assert (found.classes, found.image_shape) == (10, (3, 32, 32))
    assert (found.train_images, found.validation_images) == (45_000, 5_000)


@pytest.mark.parametrize("spec", ["digits", "cifar10:/nowhere", "synthetic:13x9x4/7"])
def test_a_stand_in_has_the_same_shape_and_classes(spec: str) -> None:
    asked = source(spec).describe()
    found = source(asked.stand_in).describe()
    assert (found.image_shape, found.classes) == (asked.image_shape, asked.classes)


def test_a_data_set_is_read_once(folder: Path) -> None:
    found = source(f"cifar10:{folder}")
    data = found.open()
    for name in NAMES:
        (folder / name).unlink()
    assert found.open() is data
    assert found.identity() == digest(data)


def test_what_is_allowed_comes_from_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [kind.form for kind in sources.KINDS.values()]
    assert written[:3] == ["digits", "fashion", "cifar10:DIR"]
    assert forms() == f"{', '.join(written[:-1])} and synthetic:HxWxC/CLASSES"
    assert fetchable() == "CIFAR-10 (162 MiB), CIFAR-100 (161 MiB)"
    kind = sources.Kind("mine:DIR", lambda argument, download, progress: as_source(made()), "Mine (1 MiB)")
    monkeypatch.setitem(sources.KINDS, "mine", kind)
    assert load("mine:x").name == "made up"
    assert fetchable() == "CIFAR-10 (162 MiB), CIFAR-100 (161 MiB), Mine (1 MiB)"
    with pytest.raises(DataError, match=r"allowed are digits, .*, synthetic:HxWxC/CLASSES and mine:DIR"):
        source("mine")


def test_arrays_cannot_be_named_by_a_text() -> None:
    with pytest.raises(DataError, match="'arrays' are arrays of a Python program, which only that program"):
        source(as_source(arrays()).name)


def test_malformed_arguments_are_refused_before_anything_is_read() -> None:
    with pytest.raises(DataError, match="malformed"):
        source("synthetic:8x8")
    with pytest.raises(DataError, match="'cifar10:' names no folder, expected cifar10:DIR"):
        source("cifar10:")


# Identity.


def test_identity_does_not_depend_on_where_the_files_lie(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "two" / "cifar-10-batches-bin"
    other.mkdir(parents=True)
    for name in NAMES:
        (other / name).write_bytes((folder / name).read_bytes())
    identity = source(f"cifar10:{folder}").identity()
    assert re.fullmatch("[0-9a-f]{64}", identity)
    assert source(f"cifar10:{other.parent}").identity() == identity
    changed = bytearray((folder / NAMES[2]).read_bytes())
    changed[1] ^= 1
    (folder / NAMES[2]).write_bytes(changed)
    assert source(f"cifar10:{folder}").identity() != identity


def test_the_digest_of_the_digits_never_changes() -> None:
    assert digest(load("digits")) == "0ad977996822f6a3619c7f8ffa5edf01bf6e6afbc1b856f733f6ca1ee82ae907"


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 5},
        {"crop_padding": 2},
        {"flip": False},
        {"mean": torch.full((3,), 9.0)},
        {"std": torch.full((3,), 9.0)},
        {"train_labels": torch.zeros(30, dtype=torch.int64)},
        {"validation_labels": torch.zeros(10, dtype=torch.int64)},
        {"train_images": torch.zeros(30, 3, 6, 5, dtype=torch.uint8)},
        {"validation_images": torch.zeros(10, 3, 6, 5, dtype=torch.uint8)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_a_training_sees_is_in_the_digest(changes: dict[str, object]) -> None:
    assert digest(made(**changes)) != digest(made())


def test_fewer_training_images_are_another_data_set() -> None:
    assert digest(made().subset(29)) != digest(made())
    assert digest(made().subset(30)) == digest(made())


def test_the_same_bytes_in_another_shape_are_another_data_set() -> None:
    data = made()
    turned = [images.reshape(-1, 3, 5, 6) for images in (data.train_images, data.validation_images)]
    flat = replace(data, train_images=turned[0], validation_images=turned[1])
    assert digest(flat) != digest(data)


def test_names_and_strides_are_not_in_the_digest() -> None:
    data = made()
    other = replace(data, name="other", train_images=data.train_images.contiguous())
    assert other.train_images.stride() != data.train_images.stride()
    assert digest(other) == digest(data)


@given(st.integers(0, 29), st.integers(0, 2), st.integers(0, 5), st.integers(0, 4))
def test_every_pixel_counts(image: int, channel: int, row: int, column: int) -> None:
    data = made()
    images = data.train_images.clone()
    images[image, channel, row, column] ^= 1
    assert digest(replace(data, train_images=images)) != digest(data)


# Arrays of a Python program.


def test_every_image_keeps_its_label_and_is_used_once() -> None:
    images, labels = arrays()
    data = as_source((images, labels)).open()
    assert (data.name, data.classes, data.image_shape) == ("arrays", 4, (3, 6, 5))
    assert (len(data.train_labels), len(data.validation_labels)) == (36, 4)
    shown = torch.cat([data.train_images, data.validation_images]).permute(0, 2, 3, 1).numpy()
    targets = torch.cat([data.train_labels, data.validation_labels]).tolist()
    expected = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    assert sorted((image.tobytes(), label) for image, label in zip(shown, targets, strict=True)) == expected
    assert not np.array_equal(shown, images)


def test_settings_of_arrays_are_taken() -> None:
    found = as_source(arrays(), classes=9, validation=13, crop_padding=3, flip=True)
    data = found.open()
    assert found.describe() == described(data)
    assert (data.classes, len(data.validation_labels), data.crop_padding, data.flip) == (9, 13, 3, True)
    assert as_source(arrays()).open().flip is False


def test_changing_the_arrays_afterwards_changes_nothing() -> None:
    images, labels = arrays()
    found = as_source((images, labels))
    expected = as_source(arrays()).identity()
    images[:], labels[:] = 0, 0
    assert found.identity() == expected


@pytest.mark.parametrize("labels", [np.arange(40, dtype=np.uint8) % 4, [n % 4 for n in range(40)]])
def test_labels_may_be_of_any_whole_number_type(labels: object) -> None:
    assert as_source((arrays()[0], labels)).identity() == as_source(arrays()).identity()


def test_strided_images_are_the_same_as_contiguous_ones() -> None:
    images, labels = arrays()
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert as_source((planes, labels)).identity() == as_source((images, labels)).identity()


def test_a_data_set_and_a_source_stay_what_they_are() -> None:
    data = made()
    found = as_source(data)
    assert found.name == "made up"
    assert found.identity() == digest(data)
    assert as_source(found) is found
    with pytest.raises(DataError, match="made up: has its own classes, split and augmentation"):
        as_source(data, flip=True)


def test_anything_that_does_what_a_source_does_is_one() -> None:
    class Mine:
        name = "mine"

        def describe(self) -> Description:
            return described(made())

        def identity(self) -> str:
            return "7"

        def open(self) -> DataSet:
            return made()

    mine: DataSource = Mine()
    assert as_source(mine) is mine


IMAGES, LABELS = arrays()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data are NoneType, allowed are (images, labels), a DataSet or a source"),
        ((IMAGES,), "data are tuple, allowed are (images, labels)"),
        ((IMAGES / 255, LABELS), "images are float64 of shape (40, 6, 5, 3), allowed are uint8 of shape"),
        (
            (IMAGES[..., 0], LABELS),
            "images are uint8 of shape (40, 6, 5), allowed are uint8 of shape (n, H, W",
        ),
        ((IMAGES[:0], LABELS[:0]), "none of them 0"),
        ((IMAGES[:1], LABELS[:1]), "allowed are two images or more"),
        ((np.zeros((40, 3, 32, 32), np.uint8), LABELS), "allowed are 1 to 16 channels"),
        (([[1], [1, 2]], LABELS), "images or labels are no array"),
        ((IMAGES, LABELS[:-1]), "labels are int64 of shape (39,), allowed are whole numbers of shape (40,)"),
        ((IMAGES, LABELS / 2), "labels are float64 of shape (40,)"),
        ((IMAGES, LABELS > 1), "labels are bool of shape (40,)"),
        ((IMAGES, LABELS[:, None]), "labels are int64 of shape (40, 1)"),
        ((IMAGES, LABELS - 1), "labels run from -1 to 2"),
        ((IMAGES, LABELS * 0), "1 classes, allowed are 2 or more"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(data: object, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        as_source(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0}, "0 of 40 images validate, allowed are 1 to 39"),
        ({"validation": 40}, "40 of 40 images validate, allowed are 1 to 39"),
        ({"classes": 3}, "labels run from 0 to 3, allowed are 0 to 2"),
        ({"crop_padding": -1}, "crop padding of -1 pixels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        as_source(arrays(), **settings)  # type: ignore[arg-type]


# Other versions of CIFAR-10, and odd names.


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("cifar-10-batches-py/data_batch_1", "the Python version (pickles, which are never read)"),
        ("data_batch_1", "the Python version (pickles, which are never read)"),
        ("cifar-10-batches-mat/data_batch_1.mat", "the Matlab version"),
        ("data_batch_1.mat", "the Matlab version"),
        ("cifar-10-python.tar.gz", "the Python version, still packed"),
        ("cifar-10-binary.tar.gz", "the binary version, still packed (unpack it)"),
        ("cifar-100-binary/train.bin", "CIFAR-100"),
        ("train", "CIFAR-100's Python version"),
    ],
)
def test_another_version_is_recognised_and_the_right_one_is_named(
    tmp_path: Path, file: str, title: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"\x80\x04.")
    with pytest.raises(DataError) as caught:
        load(f"cifar10:{tmp_path}")
    assert str(caught.value) == (
        f"{tmp_path}: holds {title}, not the CIFAR-10 binary version, expected data_batch_1.bin to "
        "data_batch_5.bin there or in its folder cifar-10-batches-bin, from "
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (--download fetches them, 162 MiB)"
    )


@pytest.mark.parametrize("name", ["a:b", "[lr=0.1]-a", " x ", "\ufeffbom", "caf\udce9", "ünï", "a\nb"])
def test_a_folder_may_have_any_name(folder: Path, name: str) -> None:
    place = folder.with_name(name)
    folder.rename(place)
    assert load(f"cifar10:{place}").classes == 10


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "npz", "npy", "idx", "folder"])
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "file/below", "~nobody-at-all/x"])
def test_places_that_cannot_be_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        load(f"{kind}:{name}")
    assert "\n" not in str(caught.value)
    assert name.rstrip("/") in str(caught.value)


def test_the_home_of_nobody_is_one_line() -> None:
    with pytest.raises(DataError, match="~nobody-at-all/x: is no folder") as caught:
        load("cifar10:~nobody-at-all/x")
    assert "\n" not in str(caught.value)
