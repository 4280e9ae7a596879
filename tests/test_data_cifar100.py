"""CIFAR-100's binary format, and the test files of both CIFARs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pnas_fast.data import DataError, cifar10, cifar100, digest, load, source
from pnas_fast.data.source import described
from test_data_cifar10 import write_records

FINE = [f"class_{number:02}" for number in range(100)][::-1]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 200 records to train on and 100 to test on."""
    monkeypatch.setattr(cifar100, "TRAIN_RECORDS", 200)
    monkeypatch.setattr(cifar100, "TEST_RECORDS", 100)
    for name, count in (("train.bin", 200), ("test.bin", 100)):
        records(count).tofile(tmp_path / name)
    return tmp_path


def records(count: int) -> np.ndarray:
    content = np.random.default_rng(count).integers(0, 256, (count, 3074), dtype=np.uint8)
    content[:, 1] = np.arange(count) % 100
    content[:, 0] = content[:, 1] // 5
    return content


def refusal(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("words", "classes", "byte"), [("", 100, 1), ("#fine", 100, 1), ("#coarse", 20, 0)])
def test_labels_are_fine_or_coarse(small: Path, words: str, classes: int, byte: int) -> None:
    found = source(f"cifar100:{small}{words}")
    data = found.open()
    assert found.describe() == described(data)
    assert (data.classes, data.image_shape, data.crop_padding, data.flip) == (classes, (3, 32, 32), 4, True)
    assert (len(data.train_labels), len(data.validation_labels)) == (180, 20)
    wanted = {record[2:].tobytes(): int(record[byte]) for record in records(200)}
    images = torch.cat([data.train_images, data.validation_images])
    labels = torch.cat([data.train_labels, data.validation_labels])
    got = {
        image.contiguous().numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)
    }
    assert got == wanted
    assert data.test_labels is not None
    assert len(data.test_labels) == 100


def test_the_real_one_has_the_documented_size() -> None:
    found = source("cifar100:/nowhere").describe()
    assert (found.classes, found.image_shape) == (100, (3, 32, 32))
    assert (found.train_images, found.validation_images, found.test_images) == (45_000, 5_000, 0)


def test_names_of_classes_are_the_archive_s(small: Path) -> None:
    before = source(f"cifar100:{small}").identity()
    (small / "fine_label_names.txt").write_text("\n".join(FINE) + "\n\n")
    found = source(f"cifar100:{small}")
    assert found.describe().class_names == found.open().class_names == tuple(FINE)
    assert found.identity() == before
    (small / "fine_label_names.txt").write_text("too few")
    assert source(f"cifar100:{small}").describe().class_names[:2] == ("0", "1")


def test_the_files_may_lie_in_the_archive_s_folder_and_tests_may_be_missing(small: Path) -> None:
    identity = source(f"cifar100:{small}").identity()
    inner = small / "cifar-100-binary"
    inner.mkdir()
    (small / "train.bin").rename(inner / "train.bin")
    found = source(f"cifar100:{small}")
    assert found.identity() == identity
    assert found.describe() == described(found.open())
    assert found.open().test_images is None


def test_what_is_wrong_is_named(small: Path) -> None:
    path = small / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(f"cifar100:{small}") == (
        f"{path}: 614,799 bytes, expected 614,800 (200 records of 2 labels and 3,072 pixel bytes)"
    )
    content = records(200)
    content[7, 1] = 100
    content.tofile(path)
    assert refusal(f"cifar100:{small}") == f"{path}: record 7 has label 100, allowed are 0 to 99"
    path.unlink()
    assert refusal(f"cifar100:{small}").startswith(
        f"{small}: holds no train.bin, expected CIFAR-100's binary"
    )
    assert refusal(f"cifar100:{small}#medium").endswith("'medium' after #, allowed are coarse fine")
    assert "names coarse and fine, allowed is one" in refusal(f"cifar100:{small}#coarse,fine")
    assert re.search("names no place", refusal("cifar100:"))


def test_cifar10_s_test_file_is_its_test_part_and_changes_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "RECORDS", 20)
    content = write_records(tmp_path, 20, seed=2)
    bare = source(f"cifar10:{tmp_path}")
    assert bare.open().test_images is None
    content[:20].tofile(tmp_path / "test_batch.bin")
    found = source(f"cifar10:{tmp_path}")
    data = found.open()
    assert found.describe() == described(data)
    assert found.identity() == bare.identity() == digest(data)
    assert data.test_images is not None
    assert data.test_labels is not None
    assert np.array_equal(data.test_images.reshape(20, -1).numpy(), content[:20, 1:])
    assert data.test_labels.tolist() == content[:20, 0].tolist()
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    assert refusal(f"cifar10:{tmp_path}").startswith(
        f"{tmp_path / 'test_batch.bin'}: 5 bytes, expected 61,460"
    )
