"""Files that others made: what their readers raise is a refusal, what they say is fit for a terminal."""

from __future__ import annotations

import logging
import os
import stat
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of what moves a terminal's cursor, breaks a line or cannot be encoded."""

PICTURE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files of a folder with other endings are not images."""

LONGEST_REASON = 200
"""Characters of a reader's own words in a message."""


@contextmanager
def reading(path: str | os.PathLike[str], refusal: type[Exception], fault: str) -> Iterator[None]:
    """A reader of somebody else's file, inside of which any exception becomes a refusal in one line.

    Readers of formats raise whatever the bytes lead them to: no list of exceptions is ever whole. What they
    warn of and log is dropped. Nothing is waited for: only regular files are read.

    Args:
        path: of the file, or a link to it.
        refusal: the class that is raised, with a message as its only argument; raised inside, it passes.
        fault: what the file is not, such as "cannot be read as an image".

    Raises:
        refusal: the file is missing or not a regular one, or its reader raised something.
    """
    with silence(), refusing(path, refusal, fault):
        yield


@contextmanager
def silence() -> Iterator[None]:
    """Drop what is warned of and logged, in all threads of the process."""
    logged = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logged)


@contextmanager
def refusing(path: str | os.PathLike[str], refusal: type[Exception], fault: str) -> Iterator[None]:
    """As `reading`, but for `silence`, which is one for all threads that read."""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
        if kind is not None:
            raise refusal(f"{path}: {fault} (it is {kind}, expected a regular file)")
        yield
    except refusal:
        raise
    except Exception as error:
        raise refusal(f"{path}: {fault} ({reason(error)})") from error


def reason(error: Exception) -> str:
    """What an exception says, in one line of a bearable length."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = " ".join(text.split())
    return words[:LONGEST_REASON] or type(error).__name__


def printable(text: object) -> str:
    r"""A text as it is, but for what would act on a terminal or cannot be encoded: ``\x1b``, ``\udcff``."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _UNFIT else letter
        for letter in str(text)
    )
