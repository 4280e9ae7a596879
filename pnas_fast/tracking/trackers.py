"""The trackers that there are, and those of one run."""

from __future__ import annotations

import argparse
import netrc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pnas_fast.cli.options import ConfigError
from pnas_fast.foreign import printable, reason
from pnas_fast.tracking.messages import Begin, Ending, Finish, Parameters, Point
from pnas_fast.tracking.state import FOLDER, load
from pnas_fast.tracking.tracker import Tracker

TOOLS = {
    "tensorboard": "pnas_fast.tracking.tensorboard:TensorBoard",
    "mlflow": "pnas_fast.tracking.mlflow:Mlflow",
    "wandb": "pnas_fast.tracking.wandb:Wandb",
}
"""A tracker's name is also that of the package it needs, and of the extra that installs that."""

FINISH_SECONDS = {"done": 60.0, "stopped": 10.0, "failed": 10.0}
"""All trackers of a run together have so long to send what they have, by how it ended."""


def add_track_option(group: Any) -> None:
    """Add ``--track`` to a group of a parser: a list of names, empty where it is not given."""
    group.add_argument(
        "--track",
        type=_names,
        metavar="NAME,NAME",
        action="extend",
        default=[],
        help=f"also tell {', '.join(TOOLS)}, any of them, what happens; may be repeated",
    )


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in TOOLS:
            raise argparse.ArgumentTypeError(f"{name!r}, allowed are {', '.join(TOOLS)}, joined by commas")
    return names


def check_usable(names: Sequence[str]) -> None:
    """Raise `ConfigError` for the first tracker that cannot be used here, with what to do."""
    for name in names:
        if name not in TOOLS:
            raise ConfigError(f"track is {name!r}, allowed are {' '.join(TOOLS)}")
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name is no package
            raise ConfigError(
                f"--track {name}: the package {name} is not installed; install it with: "
                f"pip install 'pnas_fast[{name}]'"
            )
        if name == "wandb" and not _wandb_has_key():
            raise ConfigError(
                "--track wandb: no API key is known; run wandb login, set WANDB_API_KEY, or set "
                "WANDB_MODE=offline"
            )


def _wandb_has_key() -> bool:
    """Whether W&B needs no key or will find one: it would ask for it where nobody can answer."""
    given = os.environ
    if given.get("WANDB_MODE", "online") != "online":
        return True
    if given.get("WANDB_API_KEY") or given.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(given.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(given.get("NETRC")).authenticators(host) is not None
    return False


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run that is done leaves for trackers, and when it is not done.

    Attributes:
        files: names, or patterns, of files in its folder; those that are there count.
        draw: writes figures as PNG into a folder; their paths.
        stopped: what is raised, beside KeyboardInterrupt, where a run was asked to stop.
    """

    files: tuple[str, ...]
    draw: Callable[[Path], Sequence[Path]] = lambda into: ()
    stopped: type[BaseException] = KeyboardInterrupt


class Tracking:
    """The trackers of one run. Use it as a context manager: leaving it gives them a limited time to end.

    Args:
        names: of trackers, each once.
        folder: of the run, which exists and is this process's.
        identity: letters that differ between runs.
        parameters: the run's configuration.
        say: says a line to people; called in the thread of whoever calls.
        kept: what is handed over when the run is done.

    Raises:
        RunError: what was kept of an earlier time cannot be read.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        identity: str,
        parameters: Parameters,
        say: Callable[[str], None],
        kept: Kept,
    ) -> None:
        self._folder, self._say, self._kept = folder, say, kept
        own = folder.resolve() / FOLDER
        paths = {name: own / f"{name}.json" for name in dict.fromkeys(names)}
        states = {name: load(path, identity) for name, path in paths.items()}
        self._trackers = [
            Tracker(
                name,
                TOOLS[name],
                Begin(own.parent.name, identity, "", str(own / name), parameters, 0),
                states[name],
                path,
            )
            for name, path in paths.items()
        ]

    def offer(self, point: Point) -> None:
        """Have a point logged by all trackers that have not logged it. Returns at once."""
        for tracker in self._trackers:
            tracker.offer(point)

    def hear(self) -> None:
        """Say what trackers have to say."""
        for tracker in self._trackers:
            if (warning := tracker.warning()) is not None:
                self._say(printable(warning))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = isinstance(error, KeyboardInterrupt | self._kept.stopped)
        ending: Ending = "done" if error is None else "stopped" if stopped else "failed"
        finish = self._finish() if ending == "done" and self._trackers else Finish(ending)
        for tracker in self._trackers:
            tracker.finish(finish)
        until = time.monotonic() + FINISH_SECONDS[ending]
        for tracker in self._trackers:
            tracker.wait(until)
        self.hear()

    def _finish(self) -> Finish:
        files = sorted({path for name in self._kept.files for path in self._folder.glob(name)})
        figures: Sequence[Path] = ()
        try:
            figures = self._kept.draw(self._folder / FOLDER)
        except Exception as error:  # the run is done, whatever cannot be drawn
            self._say(f"--track: figures could not be drawn: {printable(reason(error))}")
        return Finish(
            "done",
            figures=[str(path.resolve()) for path in figures],
            files=[str(path.resolve()) for path in files],
        )
