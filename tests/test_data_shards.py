"""Images in tar shards: the same as in folders, by what their names say; and what is no whole shard."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pnas_fast.data import DataError, DataSet, Pictures, TrainingBatches, digest, load
from pnas_fast.data.loader import resident
from pnas_fast.data.shards import expand, read_shard
from test_data_stream import assert_same, in_memory, pictures_of

IMAGES = np.random.default_rng(6).integers(0, 256, (40, 7, 6, 3), np.uint8)


def picture(number: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(IMAGES[number]).save(content, "PNG")
    return content.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(rows: range, names: str = "") -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in rows:
        label = str(names[number % 3] if names else number % 3)
        files |= {f"{number:04}.png": picture(number), f"{number:04}.cls": f"{label}\n".encode()}
        files |= {f"{number:04}.json": b"{}"}  # which does not matter
    return files


def opened(spec: Path | str, **settings: object) -> DataSet:
    return load(f"webdataset:{spec}", pictures=Pictures(**settings))  # type: ignore[arg-type]


def refusal(spec: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        opened(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four shards of ten images."""
    for number in range(4):
        shard(tmp_path / "shards" / f"{number:03}.tar", samples(range(10 * number, 10 * number + 10)))
    return tmp_path / "shards"


def test_images_and_labels_are_those_of_the_shards(root: Path) -> None:
    data = opened(root)
    assert (len(data.train_labels), len(data.validation_labels), data.classes) == (36, 4, 3)
    known = {image.tobytes(): number % 3 for number, image in enumerate(IMAGES)}
    found = pictures_of(data.train_images) + pictures_of(data.validation_images)
    assert sorted(found) == sorted(known)
    pixels = resident(data.train_images).permute(0, 2, 3, 1)
    assert [known[image.contiguous().numpy().tobytes()] for image in pixels] == data.train_labels.tolist()


def test_batches_are_whole_permutations_from_any_batch_on(root: Path) -> None:
    data = opened(root, loaders=2)
    mine, expected = TrainingBatches(data, 9, 3), TrainingBatches(in_memory(data), 9, 3)
    assert_same(mine.epoch(1), expected.epoch(1))
    assert_same(mine.epoch(2, 2), list(expected.epoch(2))[2:])
    mine.close()


def test_shards_by_their_folder_or_their_names(root: Path) -> None:
    assert digest(opened(root)) == digest(opened(f"{root}/{{000..003}}.tar"))
    few = opened(f"{root}/{{000,003}}.tar")
    assert len(few.train_labels) + len(few.validation_labels) == 20
    assert len(opened(root / "002.tar").train_labels) == 9


@pytest.mark.parametrize(
    "names",
    [
        ("train/0.tar", "train/1.tar", "val/0.tar", "test/0.tar"),
        ("set-train-0.tar", "set-train-1.tar", "set-val-0.tar", "set_test.tar"),
        ("train_00.tar", "train_01.tar", "validation.tar", "test.tar"),
    ],
)
def test_parts_by_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        shard(tmp_path / "test" / name, samples(range(10 * number, 10 * number + 10), "xyz"))
    data = opened(tmp_path / "test")
    assert data.test_labels is not None
    assert [len(labels) for labels in (data.train_labels, data.validation_labels, data.test_labels)] == [
        20, 10, 10,
    ]  # fmt: skip
    assert pictures_of(data.validation_images) == sorted(image.tobytes() for image in IMAGES[20:30])
    assert pictures_of(data.test_images) == sorted(image.tobytes() for image in IMAGES[30:])
    assert data.class_names == ("x", "y", "z")


def test_a_shard_of_no_part_beside_others(tmp_path: Path) -> None:
    for name in ("train-0.tar", "more-0.tar"):
        shard(tmp_path / name, samples(range(10)))
    assert "more-0.tar: is of no part" in refusal(tmp_path)


def test_long_names_and_folders_inside(tmp_path: Path) -> None:
    folder = "deep.er/" + "n" * 120
    files = {f"{folder}/{name}": content for name, content in samples(range(12)).items()}
    data = opened(shard(tmp_path / "a.tar", files))
    assert torch.equal(torch.cat([data.train_labels, data.validation_labels]).bincount(), torch.full((3,), 4))


def test_a_damaged_image_is_named_or_left_out(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", samples(range(20)) | {"0007.png": b"x" * 70})
    found = refusal(path)
    assert found.startswith(f"{path}: 0007.png: cannot be read as an image (of no format that is read)")
    told: list[str] = []
    data = opened(path, skip_unreadable=True, say=told.append, cache=str(tmp_path / "cache"))
    assert len(data.train_labels) + len(data.validation_labels) == 19
    assert "1 of 20 files are no images" in told[0]


def test_a_shard_that_is_cut_short_anywhere(tmp_path: Path) -> None:
    whole = shard(tmp_path / "whole.tar", samples(range(3))).read_bytes()
    path = tmp_path / "cut.tar"
    with tarfile.open(tmp_path / "whole.tar") as archive:
        end = max(member.offset_data + 512 for member in archive)
    for length in (0, 1, 511, 512, 600, *range(1024, end, 509), end):
        path.write_bytes(whole[:length])
        found = refusal(path)
        assert found.startswith(f"{path}: "), length
    path.write_bytes(whole[:end] + b"\xff" * 1024)
    assert "is damaged or cut short" in refusal(path)


def test_what_is_no_shard(tmp_path: Path) -> None:
    files = samples(range(6))
    compressed = tmp_path / "gz.tar"
    compressed.write_bytes(gzip.compress(shard(tmp_path / "a.tar", files).read_bytes()))
    assert f"{compressed}: is no whole tar archive, or a compressed one" in refusal(compressed)
    lacks = {name: content for name, content in files.items() if name != "0004.cls"}
    path = shard(tmp_path / "labels.tar", lacks)
    assert refusal(path) == f"{path}: 0004 has no .cls, which says the class of 0004.png"
    lacks = {name: content for name, content in files.items() if name != "0004.png"}
    assert ": 0004 has no image, allowed is one of" in refusal(shard(tmp_path / "images.tar", lacks))
    assert ": 0001 has .png and .jpg, " in refusal(
        shard(tmp_path / "two.tar", {"0001.png": b"x", "0001.jpg": b"x", "0001.cls": b"1"})
    )
    assert "holds no image, looked for" in refusal(shard(tmp_path / "empty.tar", {}))
    for label in (b"", b" \n", b"x" * 2000):
        assert "0001.cls is of" in refusal(
            shard(tmp_path / "label.tar", {"0001.png": b"x", "0001.cls": label})
        )
    assert "is no text in UTF-8" in refusal(
        shard(tmp_path / "text.tar", {"0001.png": b"x", "0001.cls": b"\xff"})
    )
    one = {name: b"1" if name.endswith("cls") else content for name, content in files.items()}
    assert "1 class (1), allowed are 2 or more" in refusal(shard(tmp_path / "one.tar", one))


def test_what_is_not_there(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", samples(range(3)))
    assert refusal(f"{tmp_path}/{{0..2}}.tar") == f"{tmp_path}/1.tar: is no file, expected a shard"
    (tmp_path / "none").mkdir()
    assert "holds no shard, looked for *.tar" in refusal(tmp_path / "none")
    assert "names no place" in refusal("")
    assert "names more than 1,000,000 shards" in refusal(f"{tmp_path}/{{0..99999999999}}.tar")
    assert "names more than 1,000,000 shards" in refusal(f"{tmp_path}/{{0..9999}}-{{0..9999}}.tar")


@given(st.integers(0, 2000), st.integers(0, 30), st.integers(1, 5))
def test_braces_are_what_a_shell_makes_of_them(first: int, more: int, width: int) -> None:
    text = f"{first:0{width}}"
    found = expand(f"x-{{{text}..{first + more}}}.tar")
    assert found == [f"x-{number:0{len(text)}}.tar" for number in range(first, first + more + 1)]


def test_braces_with_words() -> None:
    assert expand("{train,val}-{0..1}") == ["train-0", "train-1", "val-0", "val-1"]
    assert expand("plain") == ["plain"]


def test_a_shard_is_read_by_its_headers(root: Path) -> None:
    found = list(read_shard(root / "001.tar"))
    assert [member.label for member in found] == [str(number % 3) for number in range(10, 20)]
    content = (root / "001.tar").read_bytes()
    assert [content[member.start : member.start + member.size] for member in found] == [
        picture(number) for number in range(10, 20)
    ]
