"""Trackers' tools for tests: one that writes down what it is told, and others that fail in every way."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnas_fast.tracking.messages import Begin, Finish, Point


class Recording:
    """Writes what it is told into files in the run's folder."""

    def begin(self, begin: Begin) -> str:
        self.folder = Path(begin.folder)
        self.folder.mkdir(exist_ok=True)
        self.note("pids", os.getpid())
        self.note("begun", [begin.identity, begin.known, begin.step, begin.parameters])
        return begin.known or f"run {len(recorded(self.folder, 'begun'))}"

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self.note("points", [point.kind, point.number, point.step, point.values, point.texts])

    def finish(self, finish: Finish) -> None:
        names = [[Path(path).name for path in paths] for paths in (finish.figures, finish.files)]
        self.note("finished", [finish.ending, finish.step, *names])

    def note(self, name: str, what: Any) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(what) + "\n")


def recorded(folder: Path, name: str) -> list[Any]:
    """What a `Recording` was told."""
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def hang() -> None:
    threading.Event().wait()


class FailsToBegin(Recording):
    def begin(self, begin: Begin) -> str:
        raise ConnectionError("no server\nanywhere\x1b[31m")


class FailsToLog(Recording):
    def log(self, points: Sequence[Point]) -> None:
        raise KeyError("what")


class FailsToFinish(Recording):
    def finish(self, finish: Finish) -> None:
        raise RuntimeError("upload refused")


class Leaves(Recording):
    def log(self, points: Sequence[Point]) -> None:
        sys.exit(3)


class IsKilled(Recording):
    def log(self, points: Sequence[Point]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class HangsAtOnce(Recording):
    def __init__(self) -> None:
        hang()


class HangsWithOthers(Recording):
    """And a program that it has started hangs too."""

    def log(self, points: Sequence[Point]) -> None:
        started = subprocess.Popen(["sleep", "1000"])
        self.note("pids", started.pid)
        hang()


class HangsInTheEnd(Recording):
    def finish(self, finish: Finish) -> None:
        hang()


class HangsWhenItLeaves(Recording):
    def begin(self, begin: Begin) -> str:
        atexit.register(hang)
        return super().begin(begin)


class FullDisk(Recording):
    def log(self, points: Sequence[Point]) -> None:
        with open("/dev/full", "w") as file:
            file.write("points")


class Waits(Recording):
    """Logs nothing before the test opens the pipe ``go``, for writing."""

    def begin(self, begin: Begin) -> str:
        known = super().begin(begin)
        if not begin.known:
            (Path(begin.folder).parent / "go").read_text()
        return known


class Prints(Recording):
    """And asks, and reads a line, as tools do."""

    def log(self, points: Sequence[Point]) -> None:
        print("an advertisement")
        os.write(1, b'{"error": "not an answer"}\n')
        print("and an error", file=sys.stderr)
        assert sys.stdin.readline() == ""
        super().log(points)
