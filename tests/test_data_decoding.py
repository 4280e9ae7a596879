"""Image files decoded by several processes: the same images and refusals as by one, and none is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnas_fast.data import DataError, decoding
from pnas_fast.data.decoding import Decoded
from pnas_fast.pictures import own_pixels

FILES = 300


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Grey images of several sizes, the last in colour, with names that are no UTF-8 among them."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    made = [folder / os.fsdecode(b"%03d\xff.png" % number) for number in range(FILES)]
    for path in made:
        colour = [3] * (path == made[-1])
        sides = random.integers(5, 20, 2)
        Image.fromarray(random.integers(0, 256, (*sides, *colour), dtype=np.uint8)).save(path)
    return made


@pytest.fixture(params=[1, 2, 3])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(decoding, "cores", lambda: count)
    monkeypatch.setattr(decoding, "FEWEST", 1)
    return count


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The processes that were forked, none of which is left when a test is over."""
    fork, pids = os.fork, list[int]()

    def noted() -> int:
        pid = fork()
        if pid:
            pids.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    yield pids
    for pid in pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def decode(
    paths: list[Path],
    size: int = 8,
    skip: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Decoded:
    return decoding.decode("x", paths, size, skip=skip, say=lambda _: None, progress=progress)


def test_images_are_the_same_and_in_order(paths: list[Path], processes: int, started: list[int]) -> None:
    wanted = np.stack([np.broadcast_to(own_pixels(path, 8), (8, 8, 3)) for path in paths])
    done: list[tuple[int, int]] = []
    decoded = decode(paths, progress=lambda *call: done.append(call))
    assert np.array_equal(decoded.images, wanted)
    assert decoded.refused == {}
    assert len(started) == (processes if processes > 1 else 0)
    assert done == [*((place, FILES) for place in range(0, FILES, decoding.CHUNK)), (FILES, FILES)]


def test_a_large_image_is_sent_whole(tmp_path: Path, processes: int) -> None:
    pixels = np.random.default_rng(1).integers(
        0, 256, (1100, 1000, 3), dtype=np.uint8
    )  # more than a pipe holds
    made = [tmp_path / f"{number}.bmp" for number in range(4)]
    for path in made:
        Image.fromarray(pixels).save(path)
    assert all(np.array_equal(image, pixels) for image in decode(made, 0).images)


def test_files_that_are_no_images_are_refused_by_their_names(
    paths: list[Path], tmp_path: Path, processes: int
) -> None:
    bad = [tmp_path / os.fsdecode(name) for name in (b"empty.png", b"no\xfe.png", b"missing.png")]
    bad[0].touch()
    bad[1].write_bytes(b"no image")
    mixed = [*paths[:40], bad[0], *paths[40:120], bad[1], bad[2], *paths[120:]]
    decoded = decode(mixed, skip=True)
    assert list(decoded.refused) == [40, 121, 122]
    for path, message in zip(bad, decoded.refused.values(), strict=True):
        assert message.startswith(f"{path}: cannot be read as an image (")
    assert not decoded.images[[40, 121, 122]].any()
    assert np.array_equal(np.delete(decoded.images, [40, 121, 122], 0), decode(paths).images)
    with pytest.raises(
        DataError, match=r"empty\.png: cannot be read .*--skip-unreadable leaves such files out"
    ):
        decode(mixed)
    with pytest.raises(DataError, match="none of 1 files is an image"):
        decode(bad[:1], skip=True)


def test_images_of_several_sizes_are_refused(paths: list[Path], processes: int) -> None:
    with pytest.raises(DataError, match="--image-size makes all images one size"):
        decode(paths, 0)


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_process_that_ends_is_said_in_one_line(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, end: Callable[[], None]
) -> None:
    program, wanted = os.getpid(), own_pixels

    def crash(path: Path, size: int) -> object:
        if path == paths[150] and os.getpid() != program:
            end()
        return wanted(path, size)

    monkeypatch.setattr(decoding, "cores", lambda: 2)
    monkeypatch.setattr(decoding, "own_pixels", crash)
    with pytest.raises(DataError, match="the process that decoded it, or one of the next files, has ended"):
        decode(paths)


def test_ctrl_c_ends_all_processes(paths: list[Path], processes: int) -> None:
    def interrupt(done: int, files: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(paths, progress=interrupt)


def test_few_files_start_no_process(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    monkeypatch.setattr(decoding, "cores", lambda: 9)
    decode(paths[: 2 * decoding.FEWEST - 1])
    assert started == []
    decode(paths[: 2 * decoding.FEWEST])
    assert len(started) == 2
