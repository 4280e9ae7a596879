"""Arrays in NumPy's files: names that people use, order and split, labels of every kind, what is refused."""

import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.data import DataError, DataSet, Pictures, as_source, load, source
from pnas_fast.data.digest import test_digest as digest_of_tests
from pnas_fast.data.order import rearrange, seeded_order, stratified
from pnas_fast.data.source import described
from pnas_fast.search import plan
from pnas_fast.search.config import quick

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (60, 6, 5), dtype=np.uint8)
LABELS = np.arange(60) % 3
MEDMNIST = {
    "train_images": IMAGES[:40], "train_labels": LABELS[:40, None].astype(np.uint8),
    "val_images": IMAGES[40:50], "val_labels": LABELS[40:50, None].astype(np.uint8),
    "test_images": IMAGES[50:], "test_labels": LABELS[50:, None].astype(np.uint8),
}  # fmt: skip
PAIR = {"images": IMAGES, "labels": LABELS}


def write(path: Path, arrays: dict[str, Any]) -> str:
    """Arrays in one file, or one each where the path is a folder's; the text that names them."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return f"npz:{path}"
    path.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return f"npy:{path}"


def refusal(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load(spec)
    with pytest.raises(DataError):
        source(spec).describe()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shown(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[bytes, int]]:
    pixels = images.permute(0, 2, 3, 1).numpy()
    return sorted((image.tobytes(), label) for image, label in zip(pixels, labels.tolist(), strict=True))


def expected(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels.ravel(), strict=True))


@pytest.fixture(params=["a.npz", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found: Path = tmp_path / request.param
    return found


def test_medmnist_s_layout_is_read_as_it_is(place: Path) -> None:
    found = source(write(place, MEDMNIST))
    data = found.open()
    assert found.describe() == described(data)
    assert (data.classes, data.image_shape, data.class_names) == (3, (1, 6, 5), ("0", "1", "2"))
    assert (data.crop_padding, data.flip) == (0, False)
    assert shown(data.train_images, data.train_labels) == expected(IMAGES[:40], LABELS[:40])
    assert shown(data.validation_images, data.validation_labels) == expected(IMAGES[40:50], LABELS[40:50])
    assert data.test_images is not None
    assert data.test_labels is not None
    assert shown(data.test_images, data.test_labels) == expected(IMAGES[50:], LABELS[50:])


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("x_train", "y_train"), ("X_train", "y_train"), ("train_images", "train_labels")],
)
def test_the_same_arrays_under_any_name_are_one_data_set(place: Path, images: str, labels: str) -> None:
    found = source(write(place, {images: IMAGES, labels: LABELS}))
    assert found.describe() == described(found.open())
    assert found.identity() == as_source((IMAGES[..., None], LABELS)).identity()


def test_the_order_in_a_file_does_not_count(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(60)
    one = source(write(tmp_path / "one.npz", PAIR))
    two = source(write(tmp_path / "two.npz", {"images": IMAGES[order], "labels": LABELS[order]}))
    assert one.identity() == two.identity()


def test_test_images_are_in_a_digest_of_their_own(tmp_path: Path) -> None:
    whole = source(write(tmp_path / "a.npz", MEDMNIST))
    swapped = MEDMNIST | {"test_labels": MEDMNIST["test_labels"][::-1]}
    permuted = source(write(tmp_path / "b.npz", swapped))
    bare = source(write(tmp_path / "c.npz", {n: a for n, a in MEDMNIST.items() if "test" not in n}))
    assert whole.identity() == permuted.identity() == bare.identity()
    assert digest_of_tests(whole.open()) != digest_of_tests(permuted.open())
    assert bare.open().test_images is None


@pytest.mark.parametrize("shape", [(60, 6, 5, 1), (60, 6, 5, 3), (60, 3, 10, 1)])
def test_channels_may_be_said(place: Path, shape: tuple[int, ...]) -> None:
    images = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    data = load(write(place, {"images": images, "labels": LABELS}))
    assert data.image_shape == (shape[3], *shape[1:3])


def test_arrays_in_columns_and_of_a_big_machine_are_the_same(place: Path) -> None:
    odd = {"images": np.asfortranarray(IMAGES), "labels": LABELS.astype(">i2")}
    assert source(write(place, odd)).identity() == as_source((IMAGES[..., None], LABELS)).identity()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["cat", "ant", "bee"])[LABELS], ("ant", "bee", "cat")),
        (np.array(["größe", "猫", " a b"])[LABELS], (" a b", "größe", "猫")),
        (np.array([b"x", b"z", b"y"])[LABELS], ("x", "y", "z")),
        (np.array(["10", "9", "-1"])[LABELS], ("-1", "9", "10")),
        (LABELS * 7 - 3, ("-3", "4", "11")),
        (LABELS.astype(bool), ("False", "True")),
        (LABELS.astype(np.uint64) + 2**40, tuple(str(2**40 + n) for n in range(3))),
    ],
)
def test_classes_are_sorted_and_keep_their_names(place: Path, labels: np.ndarray, names: tuple[str]) -> None:
    found = source(write(place, {"images": IMAGES, "labels": labels}))
    data = found.open()
    assert found.describe() == described(data)
    assert data.class_names == names
    for image, label in zip(IMAGES, labels.tolist(), strict=True):
        text = label.decode() if isinstance(label, bytes) else str(label)
        assert (image[..., None].tobytes(), names.index(text)) in everything(data)


def everything(data: DataSet) -> list[tuple[bytes, int]]:
    images = torch.cat([data.train_images, data.validation_images])
    return shown(images, torch.cat([data.train_labels, data.validation_labels]))


# Order and split.


@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.data())
def test_a_split_is_stratified_and_uses_every_image_once(classes: list[int], draw: st.DataObject) -> None:
    labels = np.array(classes)
    held = draw.draw(st.integers(1, len(labels) - 1))
    order = stratified(labels, held)
    assert sorted(order) == list(range(len(labels)))
    share = held / len(labels)
    inside = np.bincount(labels[order[-held:]], minlength=6)
    for label, count in enumerate(np.bincount(labels, minlength=6)):
        assert abs(inside[label] - share * count) <= 3  # Webster's shares leave the quota seldom
    one_tenth = stratified(labels, max(1, len(labels) // 10))[: -max(1, len(labels) // 10)]
    if len(set(classes)) < len(labels) / 2:
        assert set(labels[one_tenth]) == set(classes)


def test_a_split_of_equal_classes_is_equal() -> None:
    labels = np.random.default_rng(2).permutation(np.arange(300) % 10)
    assert np.bincount(labels[stratified(labels, 30)[-30:]]).tolist() == [3] * 10
    thousand = np.random.default_rng(2).permutation(np.arange(2000) % 1000)
    left = thousand[stratified(thousand, 200)[:-200]]
    assert len(set(left)) == 1000


@given(st.permutations(range(12)))
def test_rows_are_rearranged_in_place(order: list[int]) -> None:
    rows = RANDOM.integers(0, 256, (12, 2, 2, 1), dtype=np.uint8)
    wanted = rows[order]
    rearrange(rows, np.array(order))
    assert np.array_equal(rows, wanted)


def test_equal_images_follow_one_another_by_their_labels() -> None:
    images = np.zeros((4, 2, 2, 1), np.uint8)
    labels = np.array([3, 1, 2, 0])
    assert labels[seeded_order(images, labels)].tolist() == [0, 1, 2, 3]


def test_a_thousand_classes(tmp_path: Path) -> None:
    images = np.arange(3000, dtype=np.uint32).view(np.uint8).reshape(3000, 2, 2)
    data = load(write(tmp_path / "a.npz", {"images": images, "labels": np.arange(3000) % 1000}))
    assert (data.classes, len(data.validation_labels)) == (1000, 300)
    assert len(set(data.train_labels.tolist())) == 1000


# What is refused.


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds nothing, allowed is one of train_images/train_labels, x_train/y_train, images/labels"),
        ({"data": IMAGES, "target": LABELS}, "holds data target, allowed is one of"),
        ({"images": IMAGES}, "holds no labels, only images"),
        (PAIR | {"x_train": IMAGES, "y_train": LABELS}, "allowed is one of"),
        ({n: a for n, a in MEDMNIST.items() if n != "val_labels"}, "holds no val_labels, only"),
        ({n: a for n, a in MEDMNIST.items() if "train" not in n}, "allowed is one of"),
        (PAIR | {"images": IMAGES / 255}, "images are float64 of shape (60, 6, 5), allowed are uint8"),
        (PAIR | {"images": IMAGES[:, 0]}, "images are uint8 of shape (60, 5), allowed are uint8 of"),
        (PAIR | {"images": IMAGES[:, :0]}, "none of them 0"),
        (PAIR | {"images": IMAGES.reshape(60, 1, 1, 30)}, "allowed are 1 to 16 channels"),
        (PAIR | {"labels": LABELS[:50]}, "labels are int64 of shape (50,) for 60 images, allowed are (60,)"),
        (PAIR | {"labels": np.eye(3, dtype=int)[LABELS]}, "of shape (60, 3): several labels an image"),
        (PAIR | {"labels": LABELS / 2}, "labels are float64 of shape (60,), allowed are whole"),
        (PAIR | {"labels": np.array([b"\xff", b"a", b"b"])[LABELS]}, "a label is no text in UTF-8"),
        (PAIR | {"labels": LABELS * 0}, "1 class (0), allowed are 2 or more"),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "1 image to train and validate on"),
        (MEDMNIST | {"test_images": IMAGES[50:, :5]}, "train and test images are 6x5x1 and 5x5x1, allowed"),
        (MEDMNIST | {"val_labels": np.array(["a"] * 10)}, "numbers in one part, text in another"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_data_set_are_refused(place: Path, arrays: dict[str, Any], message: str) -> None:
    assert re.search(re.escape(message), refusal(write(place, arrays)))


def test_a_label_of_the_test_part_alone_is_refused(place: Path) -> None:
    arrays = MEDMNIST | {"test_labels": MEDMNIST["test_labels"] + 1}
    with pytest.raises(DataError, match=r"test: label '3', which no training image has, allowed are 0 1 2$"):
        load(write(place, arrays))


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_objects_are_never_unpickled(place: Path, name: str) -> None:
    bomb = np.empty(60, object)
    bomb[:] = [Bomb() for _ in range(60)]
    assert "Python objects, which are never read" in refusal(write(place, PAIR | {name: bomb}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100, pickle.dumps([1])])
def test_a_file_that_is_none_of_numpy_s_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    assert refusal(f"npz:{path}").startswith(f"{path}: cannot be read as a .npz file of arrays (")
    (tmp_path / "images.npy").write_bytes(content)
    (tmp_path / "labels.npy").write_bytes(content)
    assert re.match(re.escape(f"{tmp_path}/"), refusal(f"npy:{tmp_path}"))


@pytest.mark.parametrize("size", [20, 500, -30])
def test_a_file_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    write(tmp_path / "a.npz", PAIR)
    for name in ("a.npz", "images.npy"):
        write(tmp_path, PAIR)
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="cannot be read as a"):
        load(f"npz:{tmp_path / 'a.npz'}")
    with pytest.raises(DataError, match=r"images\.npy: cannot be read as a|images\.npy: images are"):
        load(f"npy:{tmp_path}")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write(path, PAIR)
    content = bytearray(path.read_bytes())
    content[600] ^= 1  # inside the pixels, which the archive has a checksum of
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a"):
        load(f"npz:{path}")


def test_places_that_are_none(tmp_path: Path) -> None:
    assert refusal(f"npz:{tmp_path}").startswith(
        f"{tmp_path}: cannot be read as a .npz file of arrays (it is a"
    )
    assert refusal(f"npz:{tmp_path}/no").endswith("(No such file or directory)")
    assert (
        refusal(f"npy:{tmp_path}/no")
        == f"{tmp_path}/no: is no folder that can be read (No such file or directory)"
    )
    for spec in ("npz:", "npy:"):
        with pytest.raises(DataError, match=r"names no place, expected np[yz]:(FILE|DIR)$"):
            source(spec)


def test_more_than_fits_in_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**30, 2**10, 2**10)}
        np.lib.format.write_array_header_1_0(file, header)
    np.save(tmp_path / "labels.npy", LABELS)
    assert "for 1,073,741,824 images" in refusal(f"npy:{tmp_path}")
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (60, 2**24, 2**24)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(
        DataError, match=r"images take 15,728,640\.0 GiB of memory, .* are free: .* streaming"
    ):
        load(f"npy:{tmp_path}")


def test_memory_is_said_before_it_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = np.repeat(IMAGES[..., None], 3, axis=3)
    for arrays, images in (
        (PAIR, "60 grey images of 5x6 take 0.0"),
        (MEDMNIST, "60 grey images of 5x6 take 0.0"),
        ({"images": colours, "labels": LABELS}, "60 colour images of 5x6 take 0.0"),
        ({"images": colours[..., :2], "labels": LABELS}, "60 2-channel images of 5x6 take 0.0"),
        (
            {"images": np.zeros((60, 256, 512), np.uint8), "labels": LABELS},
            "60 grey images of 512x256 take 7.5",
        ),
    ):
        shutil.rmtree(place, ignore_errors=True)
        spec, said = write(place, arrays), list[str]()
        found = source(spec, pictures=Pictures(say=said.append))
        found.describe()
        assert said == []
        found.open()
        found.open()
        assert said == [f"{spec}: {images} MiB of memory"]
    monkeypatch.setattr("pnas_fast.data.memory.available_memory", lambda: 2**20)
    said = []
    with pytest.raises(DataError, match=r"images take 7\.5 MiB of memory, 1\.0 MiB are free"):
        source(spec, pictures=Pictures(say=said.append)).open()
    assert said == []


def test_memory_is_said_before_pixels_are_read(tmp_path: Path) -> None:
    spec, said = write(tmp_path / "folder", PAIR), list[str]()
    path = tmp_path / "folder" / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cannot be read as a"):
        source(spec, pictures=Pictures(say=said.append)).open()
    assert len(said) == 1


def test_a_plan_tries_what_made_up_images_cannot_stand_for(tmp_path: Path) -> None:
    images = np.arange(1200, dtype=np.uint32).view(np.uint8).reshape(1200, 2, 2)
    spec = write(tmp_path / "a.npz", {"images": images, "labels": np.arange(1200)})
    data, _ = plan._data(replace(quick(), data=spec))
    assert (data.classes, data.name) == (1200, spec)
    data, _ = plan._data(replace(quick(), data=write(tmp_path / "b.npz", PAIR)))
    assert data.name == "synthetic:6x5x1/3"
