"""The folder of a run: created once, continued ever after, used by one search at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from filelock import FileLock, Timeout

from pnas_fast.search.config import SearchConfig

CONFIG = "config.json"
TRIALS = "trials.sqlite"
REPORT = "report.html"
_LOCK = ".lock"


class RunError(ValueError):
    """A folder that cannot be used for this search; the message says why and what can be done."""


def default_folder(config: SearchConfig) -> Path:
    """``runs/DATA-SEED-DIGEST``: the same configuration always has the same folder."""
    identity = {item.name: getattr(config, item.name) for item in fields(config) if item.metadata["identity"]}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"{config.data.partition(':')[0]}-seed{config.seed}-{digest}"


def saved_config(folder: Path) -> SearchConfig | None:
    """The configuration of the run in a folder; None where there is no run.

    Raises:
        RunError: the folder is something else.
        ConfigError: its configuration cannot be read.
    """
    if (folder / CONFIG).is_file():
        return SearchConfig.load(folder / CONFIG)
    if folder.exists():
        if not folder.is_dir():
            raise RunError(f"--out {folder}: is a file, expected a run's folder or a new name")
        # Names with a dot are what a search leaves that was killed before it wrote its configuration.
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise RunError(f"--out {folder}: holds other files and no {CONFIG}, expected a run or a new name")
    return None


def check_same(folder: Path, saved: SearchConfig, config: SearchConfig) -> None:
    """Raise `RunError`, with the difference, where a run exists with another configuration."""
    difference = saved.difference(config)
    if difference:
        raise RunError(
            f"--out {folder}: the run there has another configuration ({'; '.join(difference)}); "
            "continue it as it was, or choose another --out"
        )


@contextmanager
def opened(folder: Path, config: SearchConfig) -> Iterator[Path]:
    """Create or continue a run and keep others out of it.

    Raises:
        RunError: the run is in use, is of another configuration, or the folder cannot be written.
    """
    saved = saved_config(folder)
    if saved is not None:
        check_same(folder, saved, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"--out {folder}: in use by another search, wait for it or choose another --out"
        ) from error
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written ({error.strerror})") from error
    try:
        if saved is None or saved != config:
            config.save(folder / CONFIG)
        yield folder
    finally:
        lock.release()
