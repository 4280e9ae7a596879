"""An evaluator that does to each cell what the proposal's note says, and data for it, for workers' tests."""

import errno
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pnas_fast.data import DataSet, load
from pnas_fast.protocols import Context, EvaluatorError, Measurement, Proposal, Spec
from pnas_fast.space import Cell

SPEC = Spec("faulty:Faulty", {})


class Source:
    """The digits, or fewer of them."""

    name = "digits"

    def __init__(self, images: int = 128) -> None:
        self._images = images

    def identity(self) -> str:
        return f"digits {self._images}"

    def open(self) -> DataSet:
        return load("digits").subset(self._images)


class Faulty:
    identity = "faulty"

    def effort(self, cell: Cell) -> float:
        return 0.0

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        what = str(proposal.note.get("do", "works"))
        log(context.folder, context.number, what)
        tries = len([line for line in logged(context.folder) if line[1] == context.number])
        if what.endswith(" once"):
            what = what.removesuffix(" once") if tries == 1 else "works"
        context.report(10)
        return getattr(self, what.replace(" ", "_"))(context)  # type: ignore[no-any-return]

    def works(self, context: Context) -> Measurement:
        return Measurement("done", {"accuracy": (context.seed % 100) / 100})

    def is_killed(self, context: Context) -> Measurement:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def leaves(self, context: Context) -> Measurement:
        print("about to leave", file=sys.stderr, flush=True)
        os._exit(7)

    def exits(self, context: Context) -> Measurement:
        sys.exit("enough")

    def hangs(self, context: Context) -> Measurement:
        threading.Event().wait()
        raise AssertionError

    def raises(self, context: Context) -> Measurement:
        raise ValueError("this cell is cursed\nand so on")

    def is_big(self, context: Context) -> Measurement:
        raise MemoryError("9 GiB")

    def fills_the_disk(self, context: Context) -> Measurement:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(context.folder / "weights"))

    def cannot_answer(self, context: Context) -> Measurement:
        raise EvaluatorError("no such cell in the file")

    def is_nan(self, context: Context) -> Measurement:
        return Measurement("done", {"accuracy": float("nan")})

    def waits(self, context: Context) -> Measurement:
        """Until the test opens the pipe ``go``, for writing, once."""
        with (context.folder / "go").open() as go:
            go.read()
        return self.works(context)

    def stops_itself(self, context: Context) -> Measurement:
        os.kill(os.getpid(), signal.SIGSTOP)
        return self.works(context)

    def tells(self, context: Context) -> Measurement:
        affinity = sorted(os.sched_getaffinity(0))
        told: Any = {"path": sys.path, "cores": affinity, "parent": os.getppid(), "cwd": os.getcwd()}
        (context.folder / "told").write_text(json.dumps(told))
        return self.works(context)


class Unready(Faulty):
    """Hangs before it is made."""

    def __init__(self) -> None:
        threading.Event().wait()


def log(folder: Path, number: int, what: str) -> None:
    with (folder / "log").open("a") as file:
        file.write(json.dumps([os.getpid(), number, what]) + "\n")


def logged(folder: Path) -> list[tuple[int, int, str]]:
    return [tuple(json.loads(line)) for line in (folder / "log").read_text().splitlines()]
