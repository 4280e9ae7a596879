"""Fetching known files over HTTP and checking them; taking known files out of a known archive."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnas_fast.data.dataset import DataError

TIMEOUT = 30.0
"""Seconds a server may stay silent."""

_CHUNK = 2**18

_DIGITS = 64
"""Of a whole SHA-256 in hex."""

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

    A download that broke off leaves nothing, and is begun again by the next call.

    Raises:
        DataError: no connection, an HTTP error, silence for `TIMEOUT` seconds, a wrong size or
            checksum, or a folder that cannot be written.
    """
    with _scratch(path.parent) as scratch:
        fetched = _retrieve(remote, scratch, progress)
        _sync(fetched)
        # pooch's files are for their owner alone; this one is as any other that a program writes.
        (scratch / "ordinary").touch()
        fetched.chmod((scratch / "ordinary").stat().st_mode)
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(path)


def fetch(archive: Archive, members: Sequence[str], folder: Path, progress: Progress | None = None) -> None:
    """Download an archive and put the named members, and no others, under ``folder``.

    A member gets its name only when the archive has proved right and the member is whole on the disk.
    Members are renamed in the order given. A download that broke off leaves nothing, and is begun again by
    the next call.

    Raises:
        DataError: no connection, an HTTP error, silence for `TIMEOUT` seconds, a wrong size or
            checksum, a member that is missing or no regular file, or a folder that cannot be written.
    """
    with _scratch(folder) as scratch:
        packed = _retrieve(archive, scratch, progress)
        whole = _unpack(packed, archive.url, members, scratch)
        for member in members:
            (folder / member).parent.mkdir(parents=True, exist_ok=True)
            whole[member].replace(folder / member)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A temporary folder on the file system of ``folder``, which need not be there and is not made."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=place) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror or error})") from error


def _retrieve(remote: RemoteFile, scratch: Path, progress: Progress | None) -> Path:
    """The file, whole and right, in ``scratch``."""
    # Here, because it takes a while to import and is rarely needed.
    import pooch

    known = f"sha256:{remote.sha256}" if len(remote.sha256) == _DIGITS else None
    try:
        with _quiet(pooch.get_logger()):
            name = pooch.retrieve(
                remote.url, known, fname="fetched", path=scratch, downloader=_Downloader(remote, progress)
            )
    except DataError:
        raise
    except ValueError as error:  # another digest: what follows the first sentence is advice to programmers
        raise DataError(f"{remote.url}: {str(error).partition('. ')[0]}") from error
    if known is None and not (found := pooch.file_hash(name)).startswith(remote.sha256):
        raise DataError(f"{remote.url}: SHA-256 is {found}, expected one that begins with {remote.sha256}")
    return Path(name)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """What is fetched is for the caller to say."""
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Downloader:
    """pooch's way of fetching over HTTP, which stops at the first byte too many and fails in our words."""

    def __init__(self, remote: RemoteFile, progress: Progress | None) -> None:
        self._remote, self._progress = remote, progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        from pooch import HTTPDownloader
        from requests import HTTPError, RequestException

        received = _Received(self._remote, Path(output_file), self._progress)
        responses: list[Any] = []
        downloader = HTTPDownloader(
            progressbar=received,
            chunk_size=_CHUNK,
            timeout=TIMEOUT,
            # As it is: the checksum is of the file, not of what a server may pack it into.
            headers={"Accept-Encoding": "identity"},
            hooks={"response": lambda response, **_: responses.append(response)},
        )
        try:
            downloader(url, output_file, None)
        except HTTPError as error:
            found = f"{responses[-1].status_code} {responses[-1].reason}"
            raise DataError(f"{url}: the server answers {found}, expected 200 OK") from error
        except RequestException as error:
            what = "the download broke off" if received.begun else "cannot be reached"
            raise DataError(f"{url}: {what} ({_reason(error)})") from error
        finally:
            for response in responses:
                response.close()


class _Received:
    """What pooch calls a progress bar: looks at the bytes that have arrived.

    Attributes:
        begun: whether the server has answered.
    """

    def __init__(self, remote: RemoteFile, path: Path, progress: Progress | None) -> None:
        self._remote, self._path, self._progress = remote, path, progress
        self._size, self._done = remote.size, 0
        self.begun = False

    @property
    def total(self) -> int | None:
        """The file's bytes."""
        return self._size

    @total.setter
    def total(self, announced: int) -> None:
        self.begun = True
        if self._size is None:
            if not announced:
                raise DataError(f"{self._remote.url}: the server does not say how long the file is")
            self._size = announced

    def update(self, count: int) -> None:
        """More has arrived: about so many bytes, so the file itself is looked at."""
        assert self._size is not None
        done = self._path.stat().st_size
        if done > self._size:
            raise DataError(f"{self._remote.url}: more than expected, expected {self._size:,} bytes")
        if self._progress is not None and done > self._done:
            self._progress(done, self._size)
        self._done = done

    def reset(self) -> None:
        """The end is near: the whole is about to be counted again."""

    def close(self) -> None:
        """All has arrived."""
        if self._done != self._size:
            raise DataError(
                f"{self._remote.url}: ends after {self._done:,} bytes, expected {self._size:,} bytes"
            )


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
    _sync(path)
    return path


def _sync(path: Path) -> None:
    """Have a file on the disk: a power cut could leave its final name on an empty one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reason(error: BaseException) -> str:
    """What went wrong, on one line: the innermost of errors that were wrapped into each other."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
