"""Image files in folders: where they lie, what is in them, the cache, and what is refused."""

import io
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from pnas_fast.data import DataError, DataSet, Pictures, as_source, load, source
from pnas_fast.data import cache as cache_module
from pnas_fast.data.source import described
from pnas_fast.data.watching import watching
from pnas_fast.export.subject import run_subject
from pnas_fast.search.command import main as search
from test_data_array_files import write as write_arrays
from test_data_idx import write as write_idx

RANDOM = np.random.default_rng(11)
IMAGES = RANDOM.integers(0, 256, (30, 6, 5), dtype=np.uint8)
LABELS = np.arange(30) % 3
NO_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "pnas_fast" / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 grey images of three classes."""
    return write(tmp_path / "images")


def write(root: Path, rows: slice = slice(0, 30), names: str = "abc") -> Path:
    for number in range(30)[rows]:
        folder = root / names[LABELS[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(folder / f"{number}.png")
    return root


def opened(root: Path, **settings: object) -> DataSet:
    return load(f"folder:{root}", pictures=Pictures(**settings))  # type: ignore[arg-type]


def refusal(root: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        opened(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def all_images(data: DataSet) -> set[bytes]:
    images = torch.cat([data.train_images, data.validation_images]).permute(0, 2, 3, 1)
    return {image.contiguous().numpy().tobytes() for image in images}


# Where files lie.


def test_the_same_images_are_one_data_set_in_every_form(tmp_path: Path) -> None:
    images, labels = IMAGES[..., None], LABELS
    expected = as_source((images, labels))
    for part, rows in (("train", slice(0, 24)), ("test", slice(24, 30))):
        write(tmp_path / "split" / part, rows, "012")
    whole = source(f"folder:{write(tmp_path / 'whole', names='012')}")
    assert whole.identity() == expected.identity()
    assert torch.equal(whole.open().train_images, expected.open().train_images)
    arrays = {
        "train_images": IMAGES[:24], "train_labels": LABELS[:24, None],
        "test_images": IMAGES[24:], "test_labels": LABELS[24:, None],
    }  # fmt: skip
    forms = [
        f"folder:{tmp_path / 'split'}",
        write_arrays(tmp_path / "a.npz", arrays),
        write_arrays(tmp_path / "npy", arrays),
    ]
    first, *others = [source(form).open() for form in forms]
    for other in others:
        for name in (
            "train_images",
            "train_labels",
            "validation_images",
            "test_images",
            "test_labels",
            "mean",
        ):
            assert torch.equal(getattr(first, name), getattr(other, name)), name
    assert len({source(form).identity() for form in forms}) == 1


def test_idx_files_as_pictures_are_the_same(tmp_path: Path) -> None:
    from test_data_idx import IMAGES as IDX_IMAGES
    from test_data_idx import LABELS as IDX_LABELS

    found = source(f"idx:{write_idx(tmp_path / 'idx')}")
    for number, (image, label) in enumerate(zip(IDX_IMAGES, IDX_LABELS, strict=True)):
        folder = tmp_path / "png" / ("train" if number < 40 else "test") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    pictures = source(f"folder:{tmp_path / 'png'}")
    assert pictures.identity() == found.identity()
    one, other = pictures.open().test_images, found.open().test_images
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_parts_by_their_folders(tmp_path: Path, name: str) -> None:
    for part, rows in (("train", slice(0, 15)), (name, slice(15, 24)), ("test", slice(24, 30))):
        write(tmp_path / "images" / part, rows)
    found = source(f"folder:{tmp_path / 'images'}")
    data = found.open()
    assert found.describe() == described(data)
    assert (len(data.train_labels), len(data.validation_labels)) == (15, 9)
    assert data.test_labels is not None
    assert data.test_labels.bincount().tolist() == [2, 2, 2]
    assert data.class_names == ("a", "b", "c")


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    write(tmp_path / "images", names=["train", "test", "bus"])  # type: ignore[arg-type]
    assert opened(tmp_path / "images").class_names == ("bus", "test", "train")
    shutil.rmtree(tmp_path / "images" / "bus")
    assert opened(tmp_path / "images").class_names == ("test", "train")


def test_two_names_of_one_part_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "valid"):
        write(tmp_path / "images" / part)
    assert refusal(tmp_path / "images") == (
        f"{tmp_path / 'images'}: holds both val and valid, allowed is one of them"
    )


def test_hidden_and_other_files_do_not_count(root: Path) -> None:
    expected = source(f"folder:{root}").identity()
    (root / ".git").mkdir()
    (root / ".hidden.png").write_bytes(b"x")
    (root / "a" / ".thumbs").mkdir()
    (root / "a" / ".thumbs" / "x.png").write_bytes(b"x")
    (root / "a" / "._1.png").write_bytes(b"x")
    (root / "README.txt").write_text("x")
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    assert source(f"folder:{root}").identity() == expected


def test_folders_in_a_class_s_folder_and_links_are_followed(root: Path, tmp_path: Path) -> None:
    expected = source(f"folder:{root}").identity()
    (root / "a" / "deep" / "er").mkdir(parents=True)
    (root / "a" / "0.png").rename(root / "a" / "deep" / "er" / "x y.PNG")
    (root / "b").rename(tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert source(f"folder:{root}").identity() == expected


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_link_to_a_folder_that_it_lies_in_is_named(root: Path, target: str) -> None:
    link = root / "a" / "loop"
    link.symlink_to(target)
    assert refusal(root) == f"{link}: is a link to a folder that it lies in"


@pytest.mark.parametrize("place", [".", "a"])
def test_links_that_lead_in_circles_are_named(root: Path, place: str) -> None:
    (root / place / "one").symlink_to("two")
    (root / place / "two").symlink_to("one")
    assert refusal(root) == (
        f"{root / place / 'one'}: cannot be searched for images (Too many levels of symbolic links)"
    )


def test_a_link_in_a_class_s_place_is_no_way_around(root: Path) -> None:
    (root / "loop").symlink_to("..")
    assert refusal(root) == f"{root}/loop: is a link to a folder that it lies in"


def test_names_of_every_script(tmp_path: Path) -> None:
    names = ["große Katze", "猫 🐈", os.fsdecode(b"caf\xe9")]
    root = write(tmp_path / "a #b: [c]", names=names)  # type: ignore[arg-type]
    data = opened(root)
    assert data.class_names == tuple(sorted(names))
    assert opened(root).class_names == data.class_names


def test_a_thousand_classes(tmp_path: Path) -> None:
    pixel = Image.fromarray(IMAGES[0])
    for number in range(1000):
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        pixel.save(tmp_path / "images" / str(number) / "a.bmp")
    data = opened(tmp_path / "images")
    assert data.class_names == tuple(map(str, range(1000)))


def test_folders_that_are_no_data_set_are_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == (
        f"{tmp_path}/empty: holds no folder, expected one with images for each class"
    )
    assert refusal(tmp_path / "no").startswith(f"{tmp_path}/no: is no folder, expected one with a folder")
    assert refusal(root / "a" / "0.png").startswith(f"{root}/a/0.png: is no folder")
    (root / "stray.jpg").write_bytes(b"")
    assert refusal(root) == f"{root}/stray.jpg: lies beside the folders of classes, expected in one of them"
    (root / "stray.jpg").unlink()
    (root / "d").mkdir()
    assert refusal(root).startswith(f"{root}/d: holds no image, looked for .bmp")
    for name in "bcd":
        shutil.rmtree(root / name)
    assert refusal(root) == f"{root}: 1 class (a), allowed are 2 or more folders"
    with pytest.raises(DataError, match="names no place, expected folder:DIR"):
        source("folder:")


def test_a_class_of_the_test_part_alone_is_named(tmp_path: Path) -> None:
    write(tmp_path / "images" / "train")
    write(tmp_path / "images" / "test", names="abd")
    message = refusal(tmp_path / "images")
    assert message.startswith(f"{tmp_path}/images/test/d/")
    assert message.endswith("is of test class 'd', which train lacks")


@NO_ROOT
def test_what_may_not_be_read_is_named(root: Path) -> None:
    (root / "a" / "0.png").chmod(0)
    assert f"{root}/a/0.png: cannot be read as an image (Permission denied)" in refusal(root)
    (root / "b").chmod(0)
    assert f"{root}/b: cannot be searched for images (Permission denied)" in refusal(root)
    (root / "b").chmod(0o755)


# What is in files.


def test_every_format_and_kind_of_pixel(tmp_path: Path) -> None:
    colour = Image.new("RGB", (6, 6), (200, 100, 50))
    made = {
        "a.jpg": colour, "b.webp": colour, "c.bmp": colour, "d.tif": colour, "e.png": colour.convert("RGBA"),
        "f.png": colour.quantize(4), "g.jpeg": colour.convert("CMYK"), "h.PNG": colour.convert("L"),
        "i.png": colour.convert("1"), "j.png": Image.fromarray(np.full((6, 6), 65535, np.uint16)),
        "k.png": colour.convert("LA"),
    }  # fmt: skip
    for name, image in made.items():
        for label in "ab":
            (tmp_path / "images" / label).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "images" / label / name)
    data = opened(tmp_path / "images")
    assert data.image_shape == (3, 6, 6)
    assert len(data.train_labels) + len(data.validation_labels) == 22
    images = torch.cat([data.train_images, data.validation_images]).float().mean((2, 3))
    coloured = (images - torch.tensor([200, 100, 50])).abs().max(1).values < 8
    assert coloured.sum() == 14
    for name in "abcdefg":
        for path in (tmp_path / "images").glob(f"*/{name}.*"):
            path.unlink()
    grey = opened(tmp_path / "images")
    assert grey.image_shape == (1, 6, 6)
    assert int(grey.train_images.max()) == 255


def test_a_camera_s_rotation_is_respected(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        image = np.zeros((4, 8), np.uint8)
        image[:, :4] = 250
        Image.fromarray(image).save(tmp_path / "images" / label / "x.png", exif=exif)
    data = opened(tmp_path / "images")
    assert data.image_shape == (1, 8, 4)
    assert data.train_images[0, 0, :4].min() == 250


def test_images_of_several_sizes_need_one(root: Path) -> None:
    Image.new("L", (9, 7)).save(root / "b" / "other.png")
    message = refusal(root)
    assert message.startswith(f"{root}/b/other.png: 9x7 pixels, {root}/a/0.png has 5x6: --image-size makes")
    data = opened(root, size=4)
    assert data.image_shape == (1, 4, 4)


def test_a_resized_image_is_the_square_in_its_middle(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        image = np.zeros((8, 16), np.uint8)
        image[:, 4:12] = np.where(np.add.outer(np.arange(8), np.arange(8)) % 2, 200, 100)
        Image.fromarray(image).save(tmp_path / "images" / label / "x.png")
    data = opened(tmp_path / "images", size=2)
    pixels = data.train_images[0, 0].float()
    assert (pixels - 150).abs().max() < 25  # the mean of all that a pixel covers: nothing is left out


@pytest.mark.parametrize("content", [b"", b"x" * 99, None])
def test_one_bad_file_among_many_is_named_or_counted(root: Path, content: bytes | None) -> None:
    expected = source(f"folder:{root}").identity()
    path = root / "b" / "bad.png"
    if content is None:
        content = (root / "b" / "1.png").read_bytes()[:-30]
    path.write_bytes(content)
    message = refusal(root)
    assert message.startswith(f"{path}: cannot be read as an image (")
    assert message.endswith("; --skip-unreadable leaves such files out")
    said: list[str] = []
    for _ in range(2):
        data = opened(root, skip_unreadable=True, say=said.append)
        assert as_source(data).identity() == expected
    skipped = [line for line in said if "1 of 31 files are no images and left out" in line]
    assert len(skipped) == 2  # a second time from the cache
    assert str(path) in skipped[0]


def test_links_to_nowhere_and_other_kinds_of_files_are_bad_files(root: Path) -> None:
    (root / "a" / "gone.png").symlink_to("nowhere")
    assert f"{root}/a/gone.png: cannot be read as an image (No such file" in refusal(root)
    os.mkfifo(root / "a" / "a.png")
    assert "a.png: cannot be read as an image (it is a named pipe" in refusal(root)
    data = opened(root, skip_unreadable=True)
    assert len(data.train_labels) + len(data.validation_labels) == 30


def test_a_class_without_any_image_left_is_named(root: Path) -> None:
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    assert refusal(root, skip_unreadable=True) == f"{root}: no file of class 'b' is an image"
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    assert "none of 30 files is an image" in refusal(root, skip_unreadable=True)


# The cache.


def test_a_second_run_decodes_nothing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    before = opened(root, progress=lambda done, files: calls.append((done, files)))
    assert calls[-1] == (30, 30)
    (file,) = cache.iterdir()
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c"]
    monkeypatch.setattr("pnas_fast.data.decoding.decode", None)
    after = opened(root)
    for name in ("train_images", "train_labels", "validation_images", "mean", "std"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert described(before) == described(after)
    assert before.name == after.name == f"folder:{root}"
    assert after.train_images.is_contiguous(memory_format=torch.channels_last)
    assert file.stat().st_size < 30 * 30 + 4096


def test_what_changes_is_decoded_anew(root: Path, cache: Path) -> None:
    identities = {source(f"folder:{root}").identity()}
    shutil.copy(root / "a" / "0.png", root / "a" / "3.png")
    identities.add(source(f"folder:{root}").identity())
    (root / "c" / "2.png").unlink()
    identities.add(source(f"folder:{root}").identity())
    (root / "c").rename(root / "0")
    identities.add(source(f"folder:{root}").identity())
    opened(root, size=3)
    assert len(identities) == 4
    assert len(list(cache.iterdir())) == 5


def test_the_cache_may_be_named(root: Path, tmp_path: Path, cache: Path) -> None:
    opened(root, cache=str(tmp_path / "mine" / "deep"))
    assert len(list((tmp_path / "mine" / "deep").iterdir())) == 1
    assert not cache.exists()


@pytest.mark.parametrize("size", [0, 10, 200, 700])
def test_a_damaged_cache_is_made_again(root: Path, cache: Path, size: int) -> None:
    expected = all_images(opened(root))
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:size])
    assert all_images(opened(root)) == expected
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(root, cache=str(tmp_path / "file"))
    assert message.startswith(f"{tmp_path}/file: decoded images cannot be written there (")
    assert message.endswith("--cache names another folder for them")


def test_nothing_half_written_is_left(root: Path, cache: Path) -> None:
    (root / "c" / "29.png").write_bytes(b"")
    refusal(root)
    assert list(cache.iterdir()) == []


def test_a_folder_that_changes_under_way_is_named(root: Path, cache: Path) -> None:
    def change(done: int, files: int) -> None:
        (root / "a" / "0.png").write_bytes((root / "a" / "3.png").read_bytes())

    assert refusal(root, progress=change) == f"{root}: has changed while its images were read; start again"
    assert list(cache.iterdir()) == []

    def remove(done: int, files: int) -> None:
        shutil.rmtree(root, ignore_errors=True)

    assert refusal(root, progress=remove).startswith(f"{root}: is no folder")


def test_the_default_cache_is_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_module.default_cache() == tmp_path / "xdg" / "pnas_fast" / "data"
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_module.default_cache() == tmp_path / ".cache" / "pnas_fast" / "data"


def test_memory_is_said_before_it_is_taken_and_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    opened(root, say=said.append, size=512)
    assert said == [f"folder:{root}: 30 grey images of 512x512 take 7.5 MiB of memory"]
    monkeypatch.setattr("pnas_fast.data.memory.available_memory", lambda: 2**20)
    for size in (512, 511):  # from the cache, and decoded
        assert refusal(root, size=size).startswith(
            f"folder:{root}: images take 7.5 MiB of memory, 1.0 MiB are"
        )


def test_threads_leave_warnings_as_they_were(root: Path) -> None:
    before = threading.active_count()
    opened(root)
    assert threading.active_count() == before


# The command line.


def test_a_search_of_a_folder(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = (
        f"--data folder:{root} --image-size 8 --device cpu --strategy random --budget 1 --blocks 1 --epochs 1"
    )
    arguments = [
        *line.split(),
        "--batch",
        "8",
        "--workers",
        "1",
        "--filters",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert search(arguments) == 0
    assert "30 grey images of 8x8" in capsys.readouterr().out
    assert search(["--out", str(tmp_path / "run")]) == 0
    assert run_subject(tmp_path / "run").class_names == ["a", "b", "c"]
    assert search(["--out", str(tmp_path / "run"), "--image-size", "9"]) == 2
    assert "its children were trained on other images" in capsys.readouterr().err
    assert search(["--data", "digits", "--image-size", "9", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.endswith(
        "--image-size 9 with data 'digits': it is an option of folder:DIR, imagefolder:DIR, webdataset:DIR\n"
    )


@pytest.mark.parametrize(("patience", "shown"), [(60.0, False), (-1.0, True)])
def test_a_bar_appears_where_decoding_takes_time(
    root: Path, monkeypatch: pytest.MonkeyPatch, patience: float, shown: bool
) -> None:
    monkeypatch.setattr("pnas_fast.cli.commands.PATIENCE", patience)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with watching(console, "folder:[x]") as watch:
        opened(root, progress=watch.decoded, say=watch.say)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "30 grey images of 5x6 take" in output
    assert ("decoding folder:[x]" in output and "30/30" in output) == shown
