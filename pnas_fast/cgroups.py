"""CPU time and memory that control groups grant: how containers and batch systems share a machine out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(process: Path = Path("/proc/self")) -> float | None:
    """Cores' worth of time that a process is granted, say 1.5: the least of its groups' and their parents'.

    Args:
        process: its folder in ``/proc``.

    Returns:
        None where there is no limit, or no control groups, whose files are not always there to be read.
    """
    quotas = [quota for folder in _groups(process, "cpu") for quota in _quotas(folder)]
    return min(quotas, default=None)


def memory_limit(process: Path = Path("/proc/self")) -> int | None:
    """Bytes that a process's groups and their parents still grant, the least of them; None is no limit."""
    left = [value for folder in _groups(process, "memory") for value in _memory_left(folder)]
    return min(left, default=None)


def _groups(process: Path, controller: str) -> Iterator[Path]:
    """The process's groups of a controller, each with its parents as far as they are mounted."""
    try:
        memberships = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for line in mounts:
            # 33 31 0:30 /root /mounted/here rw,relatime [more …] - kind source options
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            version = {"": "cgroup2"}.get(controllers, "cgroup")
            if len(fields) < 5 or len(kind) < 3 or kind[0] != version:
                continue
            if version == "cgroup2" or controller in kind[2].split(","):
                yield from _with_parents(Path(_unescaped(fields[4])), path, _unescaped(fields[3]))


def _with_parents(mounted: Path, path: str, root: str) -> Iterator[Path]:
    """Folders from a group up to where the hierarchy, or what a container sees of it, is mounted."""
    inside, top = PurePosixPath(path), PurePosixPath(root)
    # A container may be shown the host's path of a group that it sees as the top.
    below = inside.relative_to(top) if inside.is_relative_to(top) else PurePosixPath()
    yield mounted / below
    yield from (mounted / parent for parent in below.parents)


def _quotas(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        if quota != "max" and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return


def _memory_left(folder: Path) -> Iterator[int]:
    """What a group may still take; memory that only caches files is given back when it is asked for."""
    version_2 = ("memory.max", "memory.current", "inactive_file")
    version_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for most, used, cached in (version_2, version_1):
        try:
            limit = (folder / most).read_text().strip()
            if limit == "max":
                continue
            lines = (folder / "memory.stat").read_text().splitlines()
            caches = sum(int(line.split()[1]) for line in lines if line.split()[0] == cached)
            yield max(0, int(limit) - int((folder / used).read_text()) + caches)
        except (OSError, ValueError, IndexError):
            continue


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
