"""What a disk refuses, in one line: which file, why, and what can be done."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota, or have it raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "that file system can only be read: choose a folder on another one",
    errno.EACCES: "mend the permissions of its folder",
    errno.EPERM: "mend the permissions of its folder",
    errno.EIO: "the disk or the way to it fails: mend it, or copy the folder elsewhere",
    errno.ESTALE: "the file server is gone or was restarted: mount it again",
    errno.ENOLCK: "that file system gives no locks: choose a folder on another one",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOENT: "its folder was removed meanwhile: put it back",
}


class DiskError(OSError):
    """A file that could not be written; the message names it, the reason and what can be done."""


def remedy(error: OSError) -> str:
    """What a person can do about an error of the operating system."""
    return _REMEDIES.get(error.errno or 0, "mend that")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file that is being written in whatever the disk says against it.

    Raises:
        DiskError: in place of every other OSError of the body.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DiskError(
            f"{path}: cannot be written ({reason}); {remedy(error)}, then run the same command again"
        ) from error
