"""A run's SQLite file: opened to write or only to read, its errors as one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pnas_fast.protocols import MachineError

T = TypeVar("T")

WAIT_SECONDS = 30.0
"""For another program that holds the file, such as a database browser with an open transaction."""

_MACHINE = {
    "SQLITE_FULL": "the disk is full: make room",
    "SQLITE_IOERR": "the disk cannot be read or written: look at it, its quota and its locks",
    "SQLITE_BUSY": "another program holds it: close that",
    "SQLITE_LOCKED": "another program holds it: close that",
    "SQLITE_READONLY": "it may not be written: allow that",
    "SQLITE_NOMEM": "memory is exhausted",
    "SQLITE_PROTOCOL": "its file system cannot lock: use a local one",
}


class StoreError(ValueError):
    """A trial store that cannot be used; the message names the file and what was expected."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Make an error of SQLite one line: the machine's fault or the file's.

    Raises:
        MachineError: a full disk, a lock, a file that may not be written; the file is as it was.
        StoreError: the file is damaged or something else.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        reason = " ".join(str(error).split())
        for prefix, advice in _MACHINE.items():
            if name.startswith(prefix):
                raise MachineError(f"{path}: {advice}, then run the same command ({reason})") from error
        if name.startswith("SQLITE_CANTOPEN"):
            raise StoreError(f"{path}: cannot be opened ({reason})") from error
        raise StoreError(f"{path}: not a trial store, or damaged ({reason})") from error


def connect_to_write(path: Path, durable: bool = True) -> sqlite3.Connection:
    """A connection for the one process that writes, checked; readers need not wait for it.

    Where it is not ``durable``, the last commits survive the process, but not the machine's loss of power.
    """
    with explained(path):
        connection = sqlite3.connect(path, timeout=WAIT_SECONDS)
        try:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                # Some network file systems share no memory between processes.
                connection.execute("PRAGMA journal_mode = DELETE")
            # FULL: a trial that was reported is on the disk, even if the machine loses power.
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            _check(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, checked; the folder need not be writable.

    Raises:
        StoreError: no file, or not a sound SQLite file.
    """
    if not path.is_file():
        raise StoreError(f"{path}: is no file, expected the trial store of a run")
    with explained(path):
        if _is_at_rest(path):
            return _checked(_read_only(path, "&immutable=1"))
        try:
            return _checked(_read_only(path))
        except sqlite3.OperationalError:
            # Where SQLite may not create its shared memory beside the file, nobody is writing it.
            return _checked(_read_only(path, "&immutable=1"))


def _read_only(path: Path, more: str = "") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{more}", uri=True, timeout=WAIT_SECONDS)


def _is_at_rest(path: Path) -> bool:
    """Whether a file in write-ahead mode has no log, so that no process has it open to write.

    Read as it stands, it needs no lock, and the reader leaves no file of its own beside it.
    """
    with path.open("rb") as file:
        header = file.read(20)
    return header[18:20] == b"\2\2" and not path.with_name(f"{path.name}-wal").exists()


def _checked(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version that a file says it has; 0 for an empty one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def decode(text: Any, kind: type[T], what: str) -> T:
    """JSON text as a value of a type.

    Raises:
        StoreError: it is not; the message begins with ``what``.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, TypeError, UnicodeError) as error:
        raise StoreError(f"{what}: {error}") from error
