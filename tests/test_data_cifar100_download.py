"""Downloading CIFAR-100: known, whole and in order, or not at all."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from pnas_fast.data import DataError, cifar100, download, load, source
from pnas_fast.data.source import described
from test_data_cifar100 import FINE, records
from test_data_download import Serve, Server, entry, pack, server  # noqa: F401

FOLDER = "cifar-100-binary"
FILES = {
    f"{FOLDER}/train.bin": records(200).tobytes(),
    f"{FOLDER}/test.bin": records(100).tobytes(),
    f"{FOLDER}/coarse_label_names.txt": "\n".join(FINE[:20]).encode(),
    f"{FOLDER}/fine_label_names.txt": "\n".join(FINE).encode(),
}


@pytest.fixture
def serve(server: Server, monkeypatch: pytest.MonkeyPatch) -> Serve:  # noqa: F811
    """Serves an archive and makes it the expected one."""
    monkeypatch.setattr(cifar100, "TRAIN_RECORDS", 200)
    monkeypatch.setattr(cifar100, "TEST_RECORDS", 100)

    def expect(packed: bytes) -> None:
        server.body = packed
        known = hashlib.sha256(packed).hexdigest()
        monkeypatch.setattr(cifar100, "ARCHIVE", download.Archive(server.address, len(packed), known))

    expect(pack(FILES))
    return expect


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def refusal(folder: Path) -> str:
    """The message of a download that fails and leaves nothing behind."""
    before = files(folder)
    with pytest.raises(DataError) as caught:
        load(f"cifar100:{folder}", download=True)
    assert files(folder) == before
    assert not list(folder.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_archive_is_the_published_one() -> None:
    assert cifar100.ARCHIVE.url.endswith("/cifar-100-binary.tar.gz")
    assert (cifar100.ARCHIVE.size, len(cifar100.ARCHIVE.sha256)) == (168_513_733, 64)


@pytest.mark.usefixtures("serve")
@pytest.mark.parametrize(("words", "names"), [("", FINE), ("#coarse", FINE[:20])])
def test_its_four_files_are_put_there_and_loaded(
    server: Server,  # noqa: F811
    tmp_path: Path,
    words: str,
    names: list[str],
) -> None:
    folder = tmp_path / "new" / "folder"
    calls: list[tuple[int, int]] = []
    found = source(
        f"cifar100:{folder}{words}", download=True, progress=lambda done, total: calls.append((done, total))
    )
    data = found.open()
    assert found.describe() == described(data)
    assert (len(data.train_labels), len(data.validation_labels), data.class_names) == (180, 20, tuple(names))
    assert data.test_labels is not None
    assert files(folder) == FILES
    assert calls[-1] == (len(server.body), len(server.body))
    load(f"cifar100:{folder}{words}", download=True)
    assert server.requests == 1


def test_nothing_is_fetched_unless_asked(server: Server, serve: Serve, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(DataError, match=r"holds no train.bin, .* \(--download fetches it, \d+ MiB\)$"):
        load(f"cifar100:{tmp_path}")
    (tmp_path / "train.bin").write_bytes(FILES[f"{FOLDER}/train.bin"])
    assert load(f"cifar100:{tmp_path}", download=True).test_images is None
    assert server.requests == 0


@pytest.mark.parametrize("renamed", range(4))
def test_a_kill_between_renames_is_never_taken_for_a_whole_set(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    replace, left = Path.replace, iter(range(renamed))

    def replace_some(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_some)
        with pytest.raises(KeyboardInterrupt):
            load(f"cifar100:{tmp_path}", download=True)
    assert len(files(tmp_path)) == renamed
    with pytest.raises(DataError, match="--download"):
        load(f"cifar100:{tmp_path}")
    load(f"cifar100:{tmp_path}", download=True)
    assert files(tmp_path) == FILES


def test_another_archive_is_refused_and_a_later_one_taken(
    server: Server,  # noqa: F811
    serve: Serve,
    tmp_path: Path,
) -> None:
    whole = server.body
    server.body = whole[:-1] + bytes([whole[-1] ^ 1])
    assert refusal(tmp_path).startswith(f"{server.address}: SHA256 hash of downloaded file")
    server.announced, server.body = len(whole), whole[: len(whole) // 2]
    assert refusal(tmp_path).startswith(f"{server.address}: ")
    server.announced, server.status, server.body = None, 404, b""
    assert "answers 404" in refusal(tmp_path)
    server.status = 200
    serve(pack({name: content for name, content in FILES.items() if "coarse" not in name}))
    assert "holds no cifar-100-binary/coarse_label_names.txt, expected 4 files" in refusal(tmp_path)
    evil = {"../train.bin": b"x", f"{FOLDER}/extra.bin": b"x"}
    serve(pack(evil | FILES, entry(f"{FOLDER}/link.bin", tarfile.SYMTYPE, "/etc/passwd")))
    load(f"cifar100:{tmp_path}", download=True)
    assert files(tmp_path) == FILES
