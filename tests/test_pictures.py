"""Image files of strangers: formats, depths of colour, sizes, damage, and folders of them."""

import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.images import crop_box, find_images, read_pixels, readable
from pnas_fast.pictures import MOST_PIXELS, PictureError, open_picture

GREY = ImageFormat(1, 16, 16, 1.0, (0.0,), (1.0,))
COLOUR = ImageFormat(3, 16, 16, 1.0, (0.0,) * 3, (1.0,) * 3)

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def levels(path: Path) -> np.ndarray:
    return np.asarray(open_picture(path, 1))


def write_tiff(path: Path, data: bytes, *, bits: int, photometric: int) -> None:
    """The 16×16 pixels of one strip, with nothing but the tags that TIFF asks for."""
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 16, 279: len(data)}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)


@pytest.mark.parametrize("name", ["bmp", "gif", "jpeg", "jfif", "png", "tif", "webp"])
def test_the_usual_formats_are_read(name: str, tmp_path: Path) -> None:
    kind = "JPEG" if name == "jfif" else None
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / f"a.{name}", kind)
    assert find_images([tmp_path]) == [tmp_path / f"a.{name}"]
    (pixels,) = read_pixels([tmp_path / f"a.{name}"], COLOUR)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 3


def test_of_an_animation_the_first_image_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (16, 16), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (levels(tmp_path / "a.gif") == 10).all()


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "DDS", "SGI", "PCX"])
def test_other_formats_are_refused_whatever_their_name(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(PictureError, match=r"a\.png: cannot be read as an image"):
        open_picture(tmp_path / "a.png", 3)


def test_no_program_is_started_for_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS is drawn by Ghostscript, if a file may be of it."""
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\necho 10.0\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(PictureError):
        open_picture(tmp_path / "a.jpg", 3)
    assert not called.exists()


@pytest.mark.parametrize("name", ["png", "tif"])
def test_sixteen_bits_are_scaled(name: str, tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / f"a.{name}")
    assert (levels(tmp_path / f"a.{name}") == RAMP).all()
    (pixels,) = read_pixels([tmp_path / f"a.{name}"], COLOUR)
    assert (pixels == RAMP[..., None]).all()


@given(value=st.integers(0, 65535))
def test_any_sixteen_bits_go_to_the_nearest_of_eight(
    value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("depth") / "a.png"
    Image.fromarray(np.full((2, 2), value, np.uint16)).save(path)
    assert (levels(path) == round(value / 257)).all()


def test_twelve_bits_are_scaled(tmp_path: Path) -> None:
    left, right = (RAMP.astype(int).ravel() * 4095 // 255).reshape(-1, 2).T
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=1).astype(np.uint8)
    write_tiff(tmp_path / "a.tif", packed.tobytes(), bits=12, photometric=1)
    assert (levels(tmp_path / "a.tif") == RAMP).all()


@pytest.mark.parametrize(("photometric", "wanted"), [(0, 255 - RAMP), (1, RAMP)])
def test_white_may_be_zero(photometric: int, wanted: np.ndarray, tmp_path: Path) -> None:
    data = (RAMP.astype("<u2") * 257).tobytes()
    write_tiff(tmp_path / "a.tif", data, bits=16, photometric=photometric)
    assert (levels(tmp_path / "a.tif") == wanted).all()


def test_big_endian_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16B", (16, 16), (RAMP.astype(">u2") * 257).tobytes())
    picture.save(tmp_path / "a.tif")
    assert (levels(tmp_path / "a.tif") == RAMP).all()


def test_floats_from_black_to_white_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "a.tif")
    assert (levels(tmp_path / "a.tif") == RAMP).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RAMP.astype(np.float32), r"a\.tif: values from 0 to 255, allowed are 0 to 1$"),
        (-RAMP.astype(np.float32) / 255, "values from -1 to -?0, allowed are 0 to 1$"),
        (np.full((4, 4), np.nan, np.float32), "values from nan to nan"),
        (np.full((4, 4), np.inf, np.float32), "values from inf to inf"),
        (RAMP.astype(np.int32), "32-bit integers, allowed are 8 and 16 bits, and floats from 0 to 1"),
        (RAMP.astype(np.int32) * 2**23, "32-bit integers"),
    ],
)
def test_values_whose_white_nobody_knows_are_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match=said):
        open_picture(tmp_path / "a.tif", 1)


def test_sixteen_bits_are_turned_the_right_way_up(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=turned)
    assert (levels(tmp_path / "a.png") == np.rot90(RAMP, -1)).all()


def test_too_many_pixels_are_refused_before_they_are_there(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5) + 1
    for number, width in enumerate((side, 4 * side)):
        header = b"IHDR" + struct.pack(">IIBBBBB", width, side, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
        with pytest.raises(PictureError, match=r"\d\.png: .*(pixels, allowed are|exceeds limit)"):
            open_picture(tmp_path / f"{number}.png", 1)


def test_a_picture_with_a_book_in_it_is_refused(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("book", "x" * 2**26, zip=True)
    Image.fromarray(RAMP).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(PictureError, match=r"(?i)decompressed data too large"):
        open_picture(tmp_path / "a.png", 1)


def test_pipes_devices_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for path, kind in ((tmp_path / "a.png", "named pipe"), (tmp_path / "b.png", "folder")):
        with pytest.raises(PictureError, match=f"it is a {kind}, expected a regular file"):
            open_picture(path, 3)
    with pytest.raises(PictureError, match="it is a device"):
        open_picture("/dev/zero", 3)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_whatever_is_done_to_a_file_it_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    Image.fromarray(np.stack([RAMP] * 3, axis=-1)).save(path, kind)
    whole, generator = path.read_bytes(), random.Random(kind)
    for _ in range(300):
        changed = bytearray(whole[: generator.choice((len(whole), generator.randrange(len(whole))))])
        for _ in range(min(len(changed), generator.choice((1, 3, 30)))):
            # Headers are short, and what goes wrong mostly goes wrong there.
            end = generator.choice((len(changed), min(len(changed), 60)))
            changed[generator.randrange(end)] = generator.randrange(256)
        path.write_bytes(changed)
        refused: list[PictureError] = []
        for _, pixels in readable([path], COLOUR, refused.append):
            assert pixels.shape == (16, 16, 3)
        assert all(str(path) in str(error) and "\n" not in str(error) for error in refused)


SIDES = st.integers(1, 6000)


@given(
    width=SIDES, height=SIDES, columns=st.integers(1, 600), rows=st.integers(1, 600), crop=st.floats(0.01, 1)
)
@example(width=116, height=273, columns=224, rows=224, crop=0.875)
@example(width=116, height=273, columns=224, rows=224, crop=1.0)
@example(width=1, height=6000, columns=600, rows=1, crop=1.0)
def test_a_crop_lies_inside_of_its_image(
    width: int, height: int, columns: int, rows: int, crop: float
) -> None:
    images = ImageFormat(1, rows, columns, crop, (0.0,), (1.0,))
    left, top, right, bottom = crop_box((width, height), images)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * rows == pytest.approx((bottom - top) * columns, rel=1e-6)
    assert left == pytest.approx(width - right, abs=1e-6)
    assert top == pytest.approx(height - bottom, abs=1e-6)


@given(width=st.integers(1, 300), height=st.integers(1, 300))
@example(width=116, height=273)
def test_any_size_is_resized(width: int, height: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sizes") / "a.bmp"
    Image.new("L", (width, height), 77).save(path)
    for crop in (0.875, 1.0):
        (pixels,) = read_pixels([path], ImageFormat(1, 224, 224, crop, (0.0,), (1.0,)))
        assert (pixels == 77).all()


def test_hidden_files_and_folders_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    for name in ("._a.jpg", ".b.png", ".cache/c.png", "d.png", "folder.jpg/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == [tmp_path / "d.png", tmp_path / "folder.jpg" / "e.png"]
    assert find_images([tmp_path / ".b.png"]) == [tmp_path / ".b.png"]
    assert find_images([tmp_path / ".cache"]) == [tmp_path / ".cache" / "c.png"]


def test_links_are_followed_to_each_folder_once(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/deep/b.png", "elsewhere/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "again").symlink_to("deep")
    (tmp_path / "in" / "deep" / "up").symlink_to("..")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    inside = tmp_path / "in"
    assert find_images([inside]) == [inside / "a.png", inside / "deep" / "b.png", inside / "there" / "c.png"]
    (tmp_path / "link").symlink_to("in")
    assert len(find_images([tmp_path / "link"])) == 3


def test_refused_files_are_counted_and_some_named(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.png").touch()
    Image.fromarray(RAMP).save(tmp_path / "5.png")
    with pytest.raises(ExportError) as caught:
        read_pixels(find_images([tmp_path]), GREY)
    assert str(caught.value).startswith(f"5 of 6 images are refused: {tmp_path}/0.png: cannot be read")
    assert str(caught.value).endswith("; and 2 more")


def test_networks_of_other_channels_have_no_images(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="takes 2 channels, image files have 1 or 3"):
        read_pixels([tmp_path / "none"], ImageFormat(2, 8, 8, 1.0, (0.0,) * 2, (1.0,) * 2))
