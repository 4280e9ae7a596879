"""What to tell people when the machine, not a cell, is at fault: what happened and what to mend."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

_ADVICE = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f)",
    errno.EROFS: "make that folder writable",
    errno.EACCES: "make it readable and writable for you",
    errno.EPERM: "make it readable and writable for you",
    errno.ENOENT: "a folder was removed or renamed while the run used it, or a file is missing",
    errno.ENOTDIR: "a folder was replaced while the run used it",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files",
    errno.EAGAIN: "raise the limit on processes (ulimit -u), or use fewer workers",
    errno.ENOMEM: "free memory, or use fewer workers",
    errno.EIO: "look at the disk or the network it is reached by",
    errno.ESTALE: "look at the network by which that folder is reached",
    errno.ENOTCONN: "look at the network by which that folder is reached",
    errno.ETIMEDOUT: "look at the network by which that folder is reached",
}

GO_ON = "then run the same again, nothing finished is lost"

_CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL")


def of_os(error: OSError) -> str:
    """An operating system's error, with the file it is about and advice."""
    reason = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    about = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    advice = _ADVICE.get(error.errno or 0, "mend that")
    return f"{reason}{about} ({advice}, {GO_ON})"


def of_end(code: int) -> str:
    """How a process ended, by its exit status, minus the signal if one did it."""
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return (
            f"was killed ({name}), perhaps by the system for want of memory (see dmesg; free memory or use "
            "fewer workers)"
        )
    if name == "SIGBUS":
        return f"was killed ({name}): a file that it reads was cut or cannot be read, or a disk is full"
    if name in _CRASHES:
        return f"crashed ({name}) in compiled code"
    return f"was ended by {name}"


def last_line(file: Path, begin: int = 0) -> str:
    """The last line that a log got after so many bytes, in brackets; empty where there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(begin, stream.seek(0, os.SEEK_END) - 2000))
            return bracketed(stream.read())
    except OSError:
        return ""


def bracketed(text: bytes) -> str:
    """The last line of a text, as ``(line)``; empty where there is none."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return f" ({lines[-1]})" if lines else ""
