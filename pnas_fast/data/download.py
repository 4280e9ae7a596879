"""Fetching known files over HTTP and checking them; taking known files out of a known archive."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pnas_fast.data.dataset import DataError
from pnas_fast.files import replacing

TIMEOUT = 30.0
"""Seconds a server may stay silent."""

_CHUNK = 2**18

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is known in advance.

    Attributes:
        url: where it is.
        size: its bytes; None is what the server says.
        sha256: its SHA-256 in hex, or the first digits of it where no more were published.
    """

    url: str
    size: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Archive(RemoteFile):
    """A gzipped tar file."""

    size: int


def fetch_file(remote: RemoteFile, path: Path, progress: Progress | None = None) -> None:
    """Download a file to ``path``; it has that name only when it is whole and right.

    Raises:
        DataError: no connection, an HTTP error, silence for `TIMEOUT` seconds, a wrong size or
            checksum, or a folder that cannot be written.
    """
    try:
        with _open(remote.url) as response:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                _receive(response, remote, temporary, progress)
    except OSError as error:
        raise DataError(f"{path}: cannot be written to ({error.strerror or error})") from error


def fetch(archive: Archive, members: Sequence[str], folder: Path, progress: Progress | None = None) -> None:
    """Download an archive and put the named members, and no others, under ``folder``.

    Everything happens in a temporary folder inside ``folder``, on the same file system; a member gets
    its name only when the archive has proved right and the member is whole on the disk. Members are
    renamed in the order given.

    Raises:
        DataError: no connection, an HTTP error, silence for `TIMEOUT` seconds, a wrong size or
            checksum, a member that is missing or no regular file, or a folder that cannot be written.
    """
    try:
        # Connected before the folder is made: without a network nothing is left behind.
        with _open(archive.url) as response:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch:
                packed = Path(scratch) / "archive"
                _receive(response, archive, packed, progress)
                whole = _unpack(packed, archive.url, members, Path(scratch))
                for member in members:
                    (folder / member).parent.mkdir(exist_ok=True)
                    whole[member].replace(folder / member)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror or error})") from error


def _open(url: str) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(url, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answers {error.code} {error.reason}, expected 200 OK") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: cannot be reached ({_reason(error)})") from error
    return response


def _receive(
    response: http.client.HTTPResponse, remote: RemoteFile, path: Path, progress: Progress | None
) -> None:
    """Write the response to ``path``; it must have the file's size and checksum."""
    done, digest = 0, hashlib.sha256()
    size = response.length if remote.size is None else remote.size
    if size is None:
        raise DataError(f"{remote.url}: the server does not say how long the file is")
    with path.open("wb") as file:
        # Reading stops at the first byte too many: a wrong server cannot fill the disk.
        while done <= size and (chunk := _read(response, remote.url)):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(min(done, size), size)
    if done != size:
        found = "more than expected" if done > size else f"ends after {done:,} bytes"
        raise DataError(f"{remote.url}: {found}, expected {size:,} bytes")
    if not digest.hexdigest().startswith(remote.sha256):
        raise DataError(f"{remote.url}: SHA-256 is {digest.hexdigest()}, expected {remote.sha256}")


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: the download broke off ({_reason(error)})") from error


def _unpack(packed: Path, url: str, members: Sequence[str], scratch: Path) -> dict[str, Path]:
    """Where each member lies, whole, in ``scratch``.

    Only exact names are taken and their contents copied to names of our own choice, so no path, link
    or mode in the archive matters.
    """
    whole: dict[str, Path] = {}
    try:
        with tarfile.open(packed, "r:gz") as tar:
            for entry in tar:
                if entry.name in members and entry.name not in whole:
                    whole[entry.name] = _copy(tar, entry, scratch / f"member{len(whole)}", url)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{url}: not a whole .tar.gz file ({_reason(error)})") from error
    for member in members:
        if member not in whole:
            raise DataError(f"{url}: holds no {member}, expected {len(members)} files")
    return whole


def _copy(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path, url: str) -> Path:
    content = tar.extractfile(entry) if entry.isreg() else None
    if content is None:
        raise DataError(f"{url}: {entry.name} is a link or folder, expected a regular file")
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the final name on an empty file
    return path


def _reason(error: Exception) -> str:
    """What went wrong, on one line."""
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
