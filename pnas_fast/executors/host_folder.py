"""A folder on a host that all workers of one search there share; it goes with the last of them.

Every worker holds a lock on it for as long as it lives, so that what killed ones left is known and removed by
whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_LOCK = ".lock"


class HostFolder:
    """The folder of a search, held until `leave`.

    Args:
        token: names the search.
        base: where such folders are; by default one of this user's among temporary files.

    Raises:
        OSError: it cannot be made, or the place is another user's.
    """

    def __init__(self, token: str, base: Path | None = None) -> None:
        self._base = base or Path(tempfile.gettempdir(), f"pnas_fast-{os.getuid()}")
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._base.is_symlink() or self._base.stat().st_uid != os.getuid():
            raise PermissionError(1, "is another user's", str(self._base))
        self.path = self._base / token
        self._held: IO[bytes] | None = None
        with _locked(self._base / _LOCK):
            self._sweep()
            self.path.mkdir(exist_ok=True)
            self._held = (self.path / _LOCK).open("ab")
            fcntl.flock(self._held, fcntl.LOCK_SH)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers waiting, for what one of them does for all."""
        with _locked(self.path / ".one"):
            yield

    def leave(self) -> None:
        """Let go of the folder, and remove it where nobody else holds it."""
        if self._held is not None:
            with _locked(self._base / _LOCK):
                self._held.close()
                self._held = None
                _remove_unheld(self.path)

    def _sweep(self) -> None:
        for left in self._base.iterdir():
            if left.is_dir() and left != self.path:
                _remove_unheld(left)


def _remove_unheld(folder: Path) -> None:
    with suppress(OSError), (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
