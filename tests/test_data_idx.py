"""IDX files: MNIST's and EMNIST's names, gzip, transposition, and every way in which a file can be wrong."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pnas_fast.data import DataError, Pictures, as_source, load, source
from pnas_fast.data.source import described

RANDOM = np.random.default_rng(7)
IMAGES = RANDOM.integers(0, 256, (50, 6, 4), dtype=np.uint8)
LABELS = (np.arange(50) % 3).astype(np.uint8)
NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, rename: tuple[str, str] = ("", ""), *, packed: bool = False) -> Path:
    """40 images to train on and 10 to test on."""
    folder.mkdir(exist_ok=True)
    for part, rows in (("train", slice(0, 40)), ("test", slice(40, 50))):
        for name, array in zip(NAMES[part], (IMAGES, LABELS), strict=True):
            content = idx(array[rows])
            path = folder / name.replace(*rename)
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder


def emnist(folder: Path, split: str) -> Path:
    """The same images, as EMNIST would have them in a split."""
    folder.mkdir(exist_ok=True)
    for part, rows in (("train", slice(0, 40)), ("test", slice(40, 50))):
        for kind, array in (("images-idx3", IMAGES.transpose(0, 2, 1)), ("labels-idx1", LABELS + 1)):
            path = folder / f"emnist-{split}-{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array[rows])))
    return folder


def refusal(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rename", [("", ""), ("-idx", ".idx")])
def test_mnist_s_files_are_read(tmp_path: Path, packed: bool, rename: tuple[str, str]) -> None:
    found = source(f"idx:{write(tmp_path, rename, packed=packed)}")
    data = found.open()
    assert found.describe() == described(data)
    assert (data.classes, data.image_shape) == (3, (1, 6, 4))
    assert (len(data.train_labels), len(data.validation_labels)) == (36, 4)
    assert data.test_images is not None
    tests = {image.tobytes() for image in data.test_images.numpy()}
    assert tests == {image.tobytes() for image in IMAGES[40:]}
    assert found.identity() == as_source((IMAGES[:40, ..., None], LABELS[:40])).identity()


def test_memory_is_said_before_it_is_taken_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emnist(tmp_path, "letters")
    spec, said = f"idx:{tmp_path}#letters,transposed", list[str]()
    source(spec, pictures=Pictures(say=said.append)).open()
    assert said == [f"{spec}: 50 grey images of 4x6 take 0.0 MiB of memory"]
    monkeypatch.setattr("pnas_fast.data.memory.available_memory", lambda: 1199)
    with pytest.raises(DataError, match=r"images take 0\.0 MiB of memory, 0\.0 MiB are free"):
        source(spec, pictures=Pictures(say=said.append)).open()
    assert len(said) == 1


def test_a_set_without_test_files(tmp_path: Path) -> None:
    identity = source(f"idx:{write(tmp_path)}").identity()
    for name in NAMES["test"]:
        (tmp_path / name).unlink()
    found = source(f"idx:{tmp_path}")
    assert found.open().test_images is None
    assert found.identity() == identity


def test_emnist_lies_on_its_side(tmp_path: Path) -> None:
    spec = f"idx:{emnist(tmp_path, 'letters')}"
    lying, found = load(spec), source(f"{spec}#transposed")
    data = found.open()
    assert found.describe() == described(data)
    assert (lying.image_shape, data.image_shape) == ((1, 4, 6), (1, 6, 4))
    assert data.class_names == ("1", "2", "3")
    assert found.identity() == as_source((IMAGES[:40, ..., None], LABELS[:40])).identity()


def test_of_several_splits_one_is_named(tmp_path: Path) -> None:
    emnist(tmp_path, "letters")
    one = source(f"idx:{tmp_path}").identity()
    emnist(tmp_path, "balanced")
    assert refusal(f"idx:{tmp_path}") == (
        f"{tmp_path}: holds several sets (balanced letters), allowed is one: say which, "
        f"as in idx:{tmp_path}#balanced"
    )
    assert source(f"idx:{tmp_path}#letters").identity() == one
    turned = {
        source(f"idx:{tmp_path}#{words}").identity() for words in ("letters,transposed", "transposed,letters")
    }
    assert len(turned) == 1
    assert refusal(f"idx:{tmp_path}#digits").startswith(
        f"{tmp_path}: holds no emnist-digits-train-images-idx3-ubyte"
    )


def test_a_folder_s_own_name_may_have_a_hash_sign(tmp_path: Path) -> None:
    plain = source(f"idx:{write(tmp_path / 'a')}").identity()
    for name in ("a#b", "#", "a#transposed"):
        assert source(f"idx:{write(tmp_path / name)}").identity() == plain
        assert source(f"idx:{tmp_path / name}#transposed").identity() != plain


@pytest.mark.parametrize("words", ["sideways", "", "Transposed", "letters, transposed"])
def test_other_words_are_refused(tmp_path: Path, words: str) -> None:
    assert re.search(r"after #, allowed are byclass .* mnist transposed$", refusal(f"idx:{tmp_path}#{words}"))


def test_two_splits_are_refused(tmp_path: Path) -> None:
    assert "names letters and digits, allowed is one split" in refusal(f"idx:{tmp_path}#letters,digits")


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert refusal(f"idx:{tmp_path}/no") == f"{tmp_path}/no: is no folder, expected one of IDX files"
    assert refusal("idx:") == "data 'idx:' names no place, expected idx:DIR[#WORDS]"
    assert refusal(f"idx:{tmp_path}") == (
        f"{tmp_path}: holds no train-images-idx3-ubyte (or train-images-idx3-ubyte.gz)"
    )
    for name in (*NAMES["train"], *NAMES["test"]):
        write(tmp_path)
        (tmp_path / name).unlink()
        assert refusal(f"idx:{tmp_path}") == f"{tmp_path}: holds no {name} (or {name}.gz)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing, expected 00 00 08"),
        (b"\x89PNG\r\n", "begins with 89 50 4e 47, expected"),
        (b"\0\0\x0d\x03" + bytes(12), "begins with 00 00 0d 03, expected"),
        (b"\0\0\x08\x03\0\0\0", "ends inside its header"),
        (idx(IMAGES[:40])[:-1], "holds 959 bytes of values, its header says 960"),
        (idx(IMAGES[:40]) + b"x", "holds more bytes of values, its header says 960"),
        (idx(IMAGES[:39]), "for 39 images, allowed are (39,) and (39, 1)"),
        (idx(LABELS[:40]), "images are uint8 of shape (40,), allowed are uint8 of shape (n, H, W)"),
        (idx(IMAGES[:40, :0]), "none of them 0"),
        (struct.pack(">4I", 0x803, 40, 2**31, 2**31), "images are 2147483648x2147483648x1 and 6x4x1"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    name = NAMES["train"][0]
    write(tmp_path)
    (tmp_path / name).unlink()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert message in refusal(f"idx:{tmp_path}")


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: c[:60], lambda c: b"PK" + c[2:]])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: object) -> None:
    write(tmp_path, packed=True)
    path = tmp_path / f"{NAMES['train'][0]}.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert refusal(f"idx:{tmp_path}").startswith(f"{path}: cannot be read as an IDX file (")


def test_a_folder_in_a_file_s_place_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / NAMES["train"][1]
    path.unlink()
    path.mkdir()
    assert "it is a folder, expected a regular file" in refusal(f"idx:{tmp_path}")


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    data = load(f"idx:{write(tmp_path)}")
    wanted = {image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS, strict=True)}
    images = torch.cat([data.train_images, data.validation_images])
    labels = torch.cat([data.train_labels, data.validation_labels])
    assert all(wanted[image.numpy().tobytes()] == label for image, label in zip(images, labels, strict=True))
