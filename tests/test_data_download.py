"""Downloading CIFAR-10 from a server on the loopback interface that can misbehave."""

import gzip
import hashlib
import io
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pnas_fast.data import DataError, cifar10, download, load

FOLDER = "cifar-10-batches-bin"
NAMES = ["test_batch.bin", *(f"data_batch_{number}.bin" for number in range(1, 6))]
RECORDS = 20


def records(seed: int) -> bytes:
    content = np.random.default_rng(seed).integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
    content[:, 0] %= 10
    return content.tobytes()


FILES = {f"{FOLDER}/{name}": records(seed) for seed, name in enumerate(NAMES)}


def pack(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A .tar.gz of the files, after ``extra`` entries without content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for entry in extra:
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@dataclass
class Server:
    """What to answer next: a status, a body, and the length announced (the body's, if None)."""

    address: str = ""
    status: int = 200
    body: bytes = b""
    announced: int | None = None
    requests: int = 0
    silent: threading.Event | None = None
    stalled: threading.Event | None = None
    accepted: str | None = None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            state.accepted = self.headers["Accept-Encoding"]
            if state.silent is not None:
                state.silent.wait(30)
                return
            length = len(state.body) if state.announced is None else state.announced
            self.send_response(state.status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(state.body)
            if state.stalled is not None:
                state.stalled.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state.address = f"http://127.0.0.1:{http_server.server_port}/archive.tar.gz"
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http_server.shutdown()
        thread.join()


Serve = Callable[[bytes], None]


@pytest.fixture
def serve(server: Server, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves an archive and makes it the expected one."""

    def expect(packed: bytes) -> None:
        server.body = packed
        digest = hashlib.sha256(packed).hexdigest()
        monkeypatch.setattr(cifar10, "ARCHIVE", download.Archive(server.address, len(packed), digest))

    expect(pack(FILES))
    return expect


def refusal(folder: Path) -> str:
    """The message of a download that fails and leaves no file behind."""
    with pytest.raises(DataError) as caught:
        load(f"cifar10:{folder}", download=True)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert not list(folder.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_whole(folder: Path) -> None:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)): path.read_bytes() for path in found} == FILES


@pytest.mark.usefixtures("serve")
def test_a_download_puts_the_six_files_there_and_loads_them(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    data = load(f"cifar10:{folder}", download=True)
    assert (len(data.train_labels), len(data.validation_labels)) == (90, 10)
    check_whole(folder)
    load(f"cifar10:{folder}", download=True)
    assert server.requests == 1


@pytest.mark.usefixtures("serve")
def test_progress_grows_to_the_size_of_the_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_CHUNK", 10_000)
    calls: list[tuple[int, int]] = []
    load(f"cifar10:{tmp_path}", download=True, progress=lambda done, total: calls.append((done, total)))
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert len(done) == -(-len(server.body) // 10_000)
    assert done[-1] == len(server.body)
    assert {call[1] for call in calls} == {len(server.body)}


def test_nothing_is_fetched_unless_asked(server: Server, serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--download fetches them"):
        load(f"cifar10:{tmp_path}")
    assert server.requests == 0
    assert not list(tmp_path.iterdir())


def test_an_incomplete_folder_is_completed(serve: Serve, tmp_path: Path) -> None:
    load(f"cifar10:{tmp_path}", download=True)
    (tmp_path / FOLDER / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4.bin: no such file"):
        load(f"cifar10:{tmp_path}")
    load(f"cifar10:{tmp_path}", download=True)
    check_whole(tmp_path)


def test_a_users_own_incomplete_files_are_left_alone(serve: Serve, tmp_path: Path) -> None:
    own = tmp_path / "data_batch_1.bin"
    own.write_bytes(records(99))
    load(f"cifar10:{tmp_path}", download=True)
    assert own.read_bytes() == records(99)
    own.unlink()
    check_whole(tmp_path)


def test_a_wrong_checksum_is_refused(server: Server, serve: Serve, tmp_path: Path) -> None:
    good = hashlib.sha256(server.body).hexdigest()
    server.body = server.body[:-1] + bytes([server.body[-1] ^ 1])
    bad = hashlib.sha256(server.body).hexdigest()
    message = refusal(tmp_path)
    assert message.startswith(f"{server.address}: SHA256 hash of downloaded file")
    assert message.endswith(f"expected sha256:{good} but got {bad}")


def test_a_shorter_archive_is_refused(server: Server, serve: Serve, tmp_path: Path) -> None:
    size = len(server.body)
    server.body = server.body[:-5]
    assert refusal(tmp_path) == f"{server.address}: ends after {size - 5:,} bytes, expected {size:,} bytes"


def test_a_longer_archive_is_refused_without_reading_it_all(
    server: Server, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_CHUNK", 10_000)
    size, calls = len(server.body), []
    server.body += bytes(2_000_000)
    with pytest.raises(DataError, match=f"more than expected, expected {size:,} bytes"):
        load(f"cifar10:{tmp_path}", download=True, progress=lambda *call: calls.append(call))
    assert len(calls) <= size // 10_000 + 1
    assert all(done <= total == size for done, total in calls)
    assert not list(tmp_path.iterdir())


def test_a_connection_cut_off_leaves_nothing_and_can_be_repeated(
    server: Server, serve: Serve, tmp_path: Path
) -> None:
    whole = server.body
    server.announced, server.body = len(whole), whole[: len(whole) // 2]
    assert refusal(tmp_path).startswith(f"{server.address}: ")
    server.announced, server.body = None, whole
    load(f"cifar10:{tmp_path}", download=True)
    check_whole(tmp_path)


def test_ctrl_c_leaves_nothing_and_can_be_repeated(serve: Serve, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(f"cifar10:{tmp_path}", download=True, progress=interrupt)
    assert not list(tmp_path.iterdir())
    load(f"cifar10:{tmp_path}", download=True)
    check_whole(tmp_path)


@pytest.mark.parametrize("renamed", range(6))
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
            load(f"cifar10:{tmp_path}", download=True)
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.bin"))] == [
        FILES[name] for name in sorted(list(FILES)[:renamed])
    ]
    with pytest.raises(DataError, match="--download"):
        load(f"cifar10:{tmp_path}")
    load(f"cifar10:{tmp_path}", download=True)
    check_whole(tmp_path)


def test_leftovers_of_a_killed_download_are_not_taken_for_files(serve: Serve, tmp_path: Path) -> None:
    leftover = tmp_path / ".download-killed"
    leftover.mkdir()
    (leftover / "data_batch_1.bin").write_bytes(b"half")
    with pytest.raises(DataError, match="holds none"):
        load(f"cifar10:{tmp_path}")
    assert len(load(f"cifar10:{tmp_path}", download=True).train_labels) == 90


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_http_error_is_refused(server: Server, serve: Serve, tmp_path: Path, status: int) -> None:
    server.status = status
    folder = tmp_path / "new"
    message = refusal(folder)
    assert message.startswith(f"{server.address}: the server answers {status} ")
    assert not folder.exists()


def test_no_network_is_one_line_and_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.tar.gz"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(cifar10, "ARCHIVE", download.Archive(url, 1, "0" * 64))
        assert refusal(tmp_path / "new").startswith(f"{url}: cannot be reached (")
    assert not (tmp_path / "new").exists()


def test_a_silent_server_is_given_up(
    server: Server, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    server.silent = threading.Event()
    try:
        assert refusal(tmp_path) == f"{server.address}: cannot be reached (timed out)"
    finally:
        server.silent.set()


def test_only_the_six_names_are_taken_out(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    evil = {
        "../escaped.bin": b"x",
        str(tmp_path / "absolute.bin"): b"x",
        f"{FOLDER}/../../data_batch_1.bin": b"x",
        f"./{FOLDER}/data_batch_1.bin": b"x",
        f"{FOLDER}/batches.meta.txt": b"x",
        "data_batch_1.bin": b"x",
    }
    serve(pack(evil | FILES, entry(f"{FOLDER}/link.bin", tarfile.SYMTYPE, "/etc/passwd")))
    load(f"cifar10:{folder}", download=True)
    check_whole(folder)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_regular_file_is_refused(
    server: Server, serve: Serve, tmp_path: Path, kind: bytes
) -> None:
    name = f"{FOLDER}/data_batch_2.bin"
    serve(pack(FILES, entry(name, kind, f"{FOLDER}/data_batch_1.bin")))
    message = refusal(tmp_path)
    assert message == f"{server.address}: {name} is a link or folder, expected a regular file"


def test_an_archive_without_a_member_is_refused(server: Server, serve: Serve, tmp_path: Path) -> None:
    name = f"{FOLDER}/data_batch_3.bin"
    serve(pack({other: content for other, content in FILES.items() if other != name}))
    assert refusal(tmp_path) == f"{server.address}: holds no {name}, expected 6 files"


@pytest.mark.parametrize(
    "packed",
    [
        b"<html>not an archive</html>",
        b"",
        gzip.compress(b"not a tar file"),
        pack(FILES)[:100_000],
    ],
    ids=["html", "empty", "no tar", "cut"],
)
def test_what_is_no_archive_is_refused(server: Server, serve: Serve, tmp_path: Path, packed: bytes) -> None:
    serve(packed)
    assert refusal(tmp_path).startswith(f"{server.address}: not a whole .tar.gz file (")


def test_a_damaged_archive_is_refused(serve: Serve, tmp_path: Path) -> None:
    packed = pack(FILES)
    serve(packed[:50_000] + bytes(1000) + packed[51_000:])
    assert re.search(r"not a whole .tar.gz file|holds no cifar-10", refusal(tmp_path))


def test_a_member_of_the_wrong_length_is_refused_when_read(serve: Serve, tmp_path: Path) -> None:
    serve(pack(FILES | {f"{FOLDER}/data_batch_5.bin": b"short"}))
    with pytest.raises(DataError, match=r"data_batch_5.bin: 5 bytes, expected 61,460"):
        load(f"cifar10:{tmp_path}", download=True)


def test_a_folder_that_cannot_be_written_is_refused(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(DataError, match=r"file: cannot be written to \(Not a directory\)"):
        load(f"cifar10:{file}", download=True)
    assert file.read_text() == "mine"


def test_a_download_says_nothing_of_its_own(
    serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load(f"cifar10:{tmp_path}", download=True)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_falls_silent_in_the_middle_is_given_up(
    server: Server, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "_CHUNK", 10_000)
    whole = server.body
    server.announced, server.body, server.stalled = len(whole), whole[: len(whole) // 2], threading.Event()
    try:
        assert refusal(tmp_path) == f"{server.address}: the download broke off (timed out)"
    finally:
        server.stalled.set()
    server.announced, server.body, server.stalled = None, whole, None
    load(f"cifar10:{tmp_path}", download=True)
    check_whole(tmp_path)


def test_a_server_that_packs_what_it_sends_is_asked_not_to(
    server: Server, serve: Serve, tmp_path: Path
) -> None:
    load(f"cifar10:{tmp_path}", download=True)
    assert server.accepted == "identity"


def test_a_whole_checksum_of_another_file_leaves_nothing(
    server: Server, serve: Serve, tmp_path: Path
) -> None:
    remote = download.RemoteFile(server.address, None, "0" * 64)
    with pytest.raises(DataError, match=f"expected sha256:{'0' * 64} but got "):
        download.fetch_file(remote, tmp_path / "new" / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_only_with_the_file(server: Server, serve: Serve, tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    seen: list[list[str]] = []
    remote = download.RemoteFile(server.address, None, hashlib.sha256(server.body).hexdigest())
    download.fetch_file(
        remote, place / "file", lambda done, total: seen.append([path.name for path in tmp_path.glob("a*")])
    )
    assert seen
    assert not any(seen)
    assert (place / "file").read_bytes() == server.body
    (place / "ordinary").touch()
    assert (place / "file").stat().st_mode == (place / "ordinary").stat().st_mode


KILLED = """
import os, signal, sys
from pathlib import Path
from pnas_fast.data import download
remote = download.RemoteFile(sys.argv[1], None, "")
download._CHUNK = 10_000
def killed(done, total):
    if 2 * done > total:
        os.kill(os.getpid(), signal.SIGKILL)
download.fetch_file(remote, Path(sys.argv[2]), killed)
"""


def test_a_killed_download_leaves_no_file_of_that_name_and_is_begun_again(
    server: Server, serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    ended = subprocess.run([sys.executable, "-c", KILLED, server.address, str(path)], check=False)
    assert ended.returncode == -9
    assert not path.exists()
    download.fetch_file(download.RemoteFile(server.address, len(server.body), ""), path)
    assert path.read_bytes() == server.body
