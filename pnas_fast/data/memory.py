"""Memory that images will take: said and refused before it is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pnas_fast.cgroups import memory_limit
from pnas_fast.data.dataset import DataError

_MEMINFO = Path("/proc/meminfo")
_KINDS = {1: "grey", 3: "colour"}

Say = Callable[[str], None]
"""Told lines for people."""


def silent(*_: object) -> None:
    """Tell nobody."""


def available_memory() -> int | None:
    """Bytes that this process may still take; None where nobody says."""
    known = [limit for limit in (_machine(), memory_limit()) if limit is not None]
    return min(known, default=None)


def check_memory(name: str, needed: int) -> None:
    """Refuse what does not fit in memory.

    Args:
        name: of the data set.
        needed: bytes of its images.

    Raises:
        DataError: there is less.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise DataError(
            f"{name}: images take {gigabytes(needed)} of memory, {gigabytes(available)} are free: "
            "a resident data set must fit, streaming (imagefolder:) is for others (or a smaller --image-size)"
        )


def take_memory(name: str, images: int, height: int, width: int, channels: int, say: Say) -> None:
    """Say how much memory images are about to take, or refuse them.

    Args:
        name: of the data set.
        images: how many.
        height, width, channels: of each, in bytes.
        say: told one line.

    Raises:
        DataError: there is less.
    """
    needed = images * height * width * channels
    check_memory(name, needed)
    kind = _KINDS.get(channels, f"{channels}-channel")
    say(f"{name}: {images:,} {kind} images of {width}x{height} take {needed / 2**20:,.1f} MiB of memory")


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _machine() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) * 1024 if values else None
