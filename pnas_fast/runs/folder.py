"""The folder of a run: created once, continued ever after, used by one process at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from pnas_fast.runs.config import RunConfig
from pnas_fast.runs.disk import remedy

CONFIG = "config.json"
TRIALS = "trials.sqlite"
REPORT = "report.html"
_LOCK = ".lock"
_HALF_WRITTEN = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)  # the names that `files.replacing` gives

C = TypeVar("C", bound=RunConfig)


class RunError(ValueError):
    """A folder that cannot be used for this run; the message says why and what can be done."""


def default_folder(config: RunConfig, data: str) -> Path:
    """``runs/DATA-SEED-DIGEST``: the same configuration and data, by their identity, have the same folder."""
    return Path("runs") / f"{config.data.partition(':')[0]}-seed{config.seed}-{config.digest(data)}"


def saved_config(folder: Path, kind: type[C]) -> C | None:
    """The configuration of the run in a folder; None where there is no run.

    Raises:
        RunError: the folder is something else.
        ConfigError: its configuration cannot be read.
    """
    if (folder / CONFIG).is_file():
        return kind.load(folder / CONFIG)
    if folder.exists():
        if not folder.is_dir():
            raise RunError(f"--out {folder}: is a file, expected a run's folder or a new name")
        # Names with a dot are what a run leaves that was killed before it wrote its configuration.
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise RunError(f"--out {folder}: holds other files and no {CONFIG}, expected a run or a new name")
    return None


def check_same(folder: Path, saved: C, config: C) -> None:
    """Raise `RunError`, with the difference, where a run exists with another configuration."""
    difference = saved.difference(config)
    if difference:
        raise RunError(
            f"--out {folder}: the run there has another configuration ({'; '.join(difference)}); "
            "continue it as it was, or choose another --out"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a run's folder where there is none, and keep other processes out of it.

    Raises:
        RunError: the run is in use, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"--out {folder}: in use by another process, wait for it or choose another --out"
        ) from error
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written ({error.strerror}); {remedy(error)}") from error
    try:
        sweep(folder)
        yield
    finally:
        lock.release()


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote left in a folder that is locked."""
    for path in folder.glob(".*.tmp"):
        if _HALF_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def opened(folder: Path, config: C) -> Iterator[Path]:
    """Create or continue a run and keep others out of it.

    Raises:
        RunError: the run is in use, is of another configuration, or the folder cannot be written.
    """
    saved = saved_config(folder, type(config))
    if saved is not None:
        check_same(folder, saved, config)
    with locked(folder):
        if saved is None or saved != config:
            config.save(folder / CONFIG)
        yield folder
