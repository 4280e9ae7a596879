"""What ``python -m pnas_fast.data describe`` says and draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnas_fast.data import DataSet, as_source, load
from pnas_fast.data.__main__ import main
from pnas_fast.data.summary import contact_sheet
from test_data_array_files import MEDMNIST, write


def test_a_data_set_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path / "a.npz", MEDMNIST)
    sheet = tmp_path / "sheet.png"
    assert main(["describe", spec, "--sheet", str(sheet)]) == 0
    memory, first, mean, std, identity, *table = capsys.readouterr().out.splitlines()
    assert memory == f"{spec}: 60 grey images of 5x6 take 0.0 MiB of memory"
    assert first == f"{spec}: 3 classes, images of 5x6 grey; crops move by 0, not mirrored"
    pixels = MEDMNIST["train_images"]
    assert mean == f"mean {pixels.mean():.2f} (of 255), {pixels.mean() / 255:.4f} (of 1)"
    assert std.startswith(f"std {pixels.std():.2f} (of 255)")
    assert len(identity) == len("identity ") + 64
    assert [line.split() for line in table] == [
        ["class", "train", "validation", "test"],
        ["0", "14", "3", "3"],
        ["1", "13", "4", "3"],
        ["2", "13", "3", "4"],
        ["all", "40", "10", "10"],
    ]
    with Image.open(sheet) as image:
        assert (image.format, image.mode) == ("PNG", "L")


def test_a_sheet_shows_images_of_each_class_in_a_row() -> None:
    data = load("synthetic:40x33x3/4")
    sheet = np.asarray(contact_sheet(data))
    assert sheet.shape == (5 * 42 + 2, 10 * 35 + 2, 3)
    for row in range(4):
        images = data.train_images[data.train_labels == row].permute(0, 2, 3, 1).numpy()
        top = 2 + 42 * row
        assert np.array_equal(sheet[top : top + 40, 2:35], images[0])
        assert np.array_equal(sheet[top : top + 40, 2 + 35 * 9 : 2 + 35 * 9 + 33], images[9])


def test_the_last_row_of_a_sheet_are_images_as_a_training_sees_them() -> None:
    """Moved by at most the padding, where the mean colour comes in, mirrored, and with a grey square."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (40, 40, 40, 1), dtype=np.uint8)
    plain = as_source((images, np.arange(40) % 4)).open()
    mean = round(float(plain.mean))

    def last(data: DataSet, cutout: int = 0) -> list[np.ndarray]:
        sheet = np.asarray(contact_sheet(data, cutout))
        return [sheet[2 + 42 * 4 : 42 * 5, 2 + 42 * column : 42 * (column + 1)] for column in range(10)]

    first = [np.flatnonzero(plain.train_labels == number)[:3] for number in range(4)]
    chosen = [plain.train_images[row[column], 0].numpy() for column in range(3) for row in first][:10]
    still = last(replace(plain, crop_padding=0))
    assert sorted(map(np.ndarray.tobytes, still)) == sorted(map(np.ndarray.tobytes, chosen))
    mirrored = {image.tobytes() for image in last(replace(plain, crop_padding=0, flip=True))}
    both = {image[:, ::step].tobytes() for image in chosen for step in (1, -1)}
    assert mirrored < both
    assert not mirrored <= {image.tobytes() for image in chosen}
    moved = last(replace(plain, crop_padding=3))
    padded = [np.pad(image, 3, constant_values=mean) for image in chosen]
    crops = {wide[y : y + 40, x : x + 40].tobytes() for wide in padded for y in range(7) for x in range(7)}
    assert {image.tobytes() for image in moved} <= crops
    blanked = last(replace(plain, crop_padding=0), cutout=5)
    blanks = [np.argwhere(image != whole) for image, whole in zip(blanked, still, strict=True)]
    assert all(0 < len(places) <= 25 and (np.ptp(places, axis=0) < 5).all() for places in blanks)
    assert all((image[tuple(places.T)] == mean).all() for image, places in zip(blanked, blanks, strict=True))


def test_what_is_asked_of_augmentation_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    says: list[str] = []
    for line in ("", "--flip", "--no-flip --crop-padding 0 --cutout 3"):
        assert main(["describe", "digits", *line.split()]) == 0
        first, _, _, identity, *_ = capsys.readouterr().out.splitlines()
        says += [first.partition("; ")[2], identity]
    assert says[::2] == [
        "crops move by 1, not mirrored",
        "crops move by 1, mirrored at random",
        "crops move by 0, not mirrored, cutout of 3",
    ]
    assert len(set(says[1::2])) == 3


@pytest.mark.parametrize("channels", [2, 5])
def test_a_sheet_of_odd_channels(channels: int) -> None:
    assert contact_sheet(load(f"synthetic:8x8x{channels}/2")).mode == ("RGB" if channels > 2 else "L")


def test_names_of_classes_cannot_act_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = np.array(["\x1b[31mred", "[bold]b", "c\nd"])
    arrays = {"images": MEDMNIST["train_images"], "labels": names[MEDMNIST["train_labels"][:, 0]]}
    assert main(["describe", write(tmp_path / "a.npz", arrays)]) == 0
    output = capsys.readouterr().out
    assert "\\x1b[31mred" in output
    assert "[bold]b" in output
    assert "c\\nd" in output


def test_pictures_are_made_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (20, 30), "red" if label == "a" else "blue").save(tmp_path / f"images/{label}/x.jpg")
    (tmp_path / "images" / "a" / "y.jpg").write_bytes(b"")
    arguments = [
        "describe",
        f"folder:{tmp_path}/images",
        "--image-size",
        "16",
        "--cache",
        str(tmp_path / "c"),
    ]
    assert main(arguments) == 2
    assert f"{tmp_path}/images/a/y.jpg: cannot be read as an image" in capsys.readouterr().err
    assert main([*arguments, "--skip-unreadable"]) == 0
    output = capsys.readouterr().out
    assert "1 of 3 files are no images and left out" in output
    assert "2 classes, images of 16x16 in colour; crops move by 2, not mirrored" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["npz:nowhere.npz"], "nowhere.npz: cannot be read as a .npz file of arrays (No such file"),
        (["mnist"], "data 'mnist' is unknown, allowed are digits, fashion"),
        (["digits", "--image-size", "3"], "--image-size 3 with data 'digits': it is an option of folder:DIR"),
        (["digits", "--sheet", "/nowhere/x.png"], "No such file or directory"),
        (["digits", "--crop-padding", "8"], "--crop-padding 8 on images of 8×8, allowed is 0 to 7"),
        (["digits", "--cutout", "8"], "cutout is 8 on images of 8×8, allowed is 0 to 7"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["describe", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m pnas_fast.data: error: ")
    assert message in error
    assert error.count("\n") == 1
