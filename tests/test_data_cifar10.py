"""CIFAR-10's binary format: a folder of the real size, and every way in which one can be wrong."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pnas_fast.data import DataError, DataSet, cifar10, load

NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)]
RECORD = 3073


def write_records(folder: Path, records: int, seed: int) -> np.ndarray:
    """Five files of random records; returns them all, uint8 (5 · records, 3073)."""
    random = np.random.default_rng(seed)
    content = random.integers(0, 256, (5 * records, RECORD), dtype=np.uint8)
    content[:, 0] %= 10
    for name, part in zip(NAMES, np.split(content, 5), strict=True):
        part.tofile(folder / name)
    return content


@pytest.fixture(scope="module")
def real_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, np.ndarray, DataSet]]:
    folder = tmp_path_factory.mktemp("cifar10")
    content = write_records(folder, 10_000, seed=1)
    yield folder, content, load(f"cifar10:{folder}")
    shutil.rmtree(folder)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole folder of 20 records a file, with the reader told so."""
    monkeypatch.setattr(cifar10, "RECORDS", 20)
    write_records(tmp_path, 20, seed=2)
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(f"cifar10:{folder}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_the_real_size_loads(real_size: tuple[Path, np.ndarray, DataSet]) -> None:
    folder, _, data = real_size
    assert [(folder / name).stat().st_size for name in NAMES] == [30_730_000] * 5
    assert data.train_images.shape == (45_000, 3, 32, 32)
    assert data.validation_images.shape == (5_000, 3, 32, 32)
    assert (data.classes, data.crop_padding, data.flip) == (10, 4, True)
    assert data.train_images.is_contiguous(memory_format=torch.channels_last)


def test_every_record_is_used_once_with_its_label_and_planes(
    real_size: tuple[Path, np.ndarray, DataSet],
) -> None:
    _, content, data = real_size
    images = torch.cat([data.train_images, data.validation_images]).reshape(50_000, -1).numpy()
    labels = torch.cat([data.train_labels, data.validation_labels]).numpy().astype(np.uint8)
    loaded = np.concatenate([labels[:, None], images], 1)
    # Random records differ in their first 16 bytes already, so those give the order.
    order, expected_order = (np.lexsort(array[:, 15::-1].T) for array in (loaded, content))
    assert np.array_equal(loaded[order], content[expected_order])


def test_the_validation_images_come_from_every_file(real_size: tuple[Path, np.ndarray, DataSet]) -> None:
    _, content, data = real_size
    place = {record[:16].tobytes(): index for index, record in enumerate(content)}
    firsts = data.validation_images.reshape(5_000, -1)[:, :15].numpy()
    labels = data.validation_labels.numpy().astype(np.uint8)[:, None]
    files = np.array([place[row.tobytes()] for row in np.concatenate([labels, firsts], 1)]) // 10_000
    assert np.bincount(files).min() > 850


def test_loading_twice_gives_the_same_split(small: Path) -> None:
    data, again = load(f"cifar10:{small}"), load(f"cifar10:{small}")
    assert torch.equal(data.train_images, again.train_images)
    assert torch.equal(data.validation_labels, again.validation_labels)
    assert (len(data.train_labels), len(data.validation_labels)) == (90, 10)


def test_the_files_may_lie_in_the_archives_folder(small: Path) -> None:
    expected = load(f"cifar10:{small}")
    inner = small / "cifar-10-batches-bin"
    inner.mkdir()
    for name in NAMES:
        (small / name).rename(inner / name)
    assert torch.equal(load(f"cifar10:{small}").train_images, expected.train_images)


def test_a_home_folder_is_expanded(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small.parent))
    assert len(load(f"cifar10:~/{small.name}").train_labels) == 90


def test_a_missing_folder_says_how_to_get_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    assert refusal(folder) == (
        f"{folder}: is no folder, expected data_batch_1.bin to data_batch_5.bin there or in its folder "
        "cifar-10-batches-bin, from https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz "
        "(--download fetches them, 162 MiB)"
    )
    assert not folder.exists()


def test_an_empty_folder_says_how_to_get_the_files(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert message.startswith(
        f"{tmp_path}: holds none of the CIFAR-10 binary files, expected data_batch_1.bin"
    )
    assert "--download fetches them, 162 MiB" in message


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert refusal(file).startswith(f"{file}: is no folder, expected")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(small: Path, name: str) -> None:
    (small / name).unlink()
    assert refusal(small).startswith(f"{small / name}: no such file, expected 61,460 bytes")


@pytest.mark.parametrize("change", [-1, 1, -RECORD, RECORD])
def test_a_file_of_the_wrong_length_is_named(small: Path, change: int) -> None:
    path = small / NAMES[3]
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    assert refusal(small).startswith(
        f"{path}: {61_460 + change:,} bytes, expected 61,460 (20 records of 1 label"
    )


def test_a_truncated_file_of_the_real_size_is_refused(real_size: tuple[Path, np.ndarray, DataSet]) -> None:
    folder, content, _ = real_size
    path = folder / NAMES[4]
    with path.open("r+b") as file:
        file.truncate(30_729_999)
    try:
        assert refusal(folder).startswith(f"{path}: 30,729,999 bytes, expected 30,730,000 (10,000 records of")
    finally:
        content[40_000:].tofile(path)


def test_a_label_out_of_range_is_named(small: Path) -> None:
    path = small / NAMES[2]
    with path.open("r+b") as file:
        file.seek(7 * RECORD)
        file.write(bytes([10]))
    assert refusal(small) == f"{path}: record 7 has label 10, allowed are 0 to 9"


def test_an_unreadable_file_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "fromfile", refuse)
    message = refusal(small)
    assert message == f"{small / NAMES[0]}: cannot be read (Permission denied), expected 61,460 bytes"


def test_the_published_archive_is_the_one_asked_for() -> None:
    assert cifar10.ARCHIVE.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert cifar10.ARCHIVE.size == 170_052_171
    assert re.fullmatch(r"[0-9a-f]{64}", cifar10.ARCHIVE.sha256)
