"""An evaluator that does to each cell what the proposal's note says, and data for it, for workers' tests."""

import errno
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from pnas_fast.data import DataSet, load
from pnas_fast.data.source import Description, described
from pnas_fast.evaluation import child
from pnas_fast.evaluation.train import Train
from pnas_fast.network import ChildNetwork
from pnas_fast.protocols import Context, EvaluatorError, Measurement, Measuring, Proposal, Spec
from pnas_fast.space import Cell

SPEC = Spec("faulty:Faulty", {})
STEPPING = Spec("faulty:Stepping", {})


class Source:
    """The digits, or fewer of them."""

    name = "digits"

    def __init__(self, images: int = 128) -> None:
        self._images = images

    def describe(self) -> Description:
        return described(self.open())

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
        tries = len([line for line in logged(context.folder) if line[1:] == (context.number, what)])
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


class Stepping(Faulty):
    """Does it after some steps, and not before as many tasks have begun as its note says."""

    def measuring(self, proposal: Proposal, context: Context) -> Measuring:
        log(context.folder, context.number, "begins")
        while len({number for _, number, _ in logged(context.folder)}) < int(proposal.note.get("beside", 1)):
            yield True
        for _ in range(int(proposal.note.get("steps", 30))):
            yield False
        return self.measure(proposal, context)


class Unready(Faulty):
    """Hangs before it is made."""

    def __init__(self) -> None:
        threading.Event().wait()


def log(folder: Path, number: int, what: str) -> None:
    with (folder / "log").open("a") as file:
        file.write(json.dumps([os.getpid(), number, what]) + "\n")


def logged(folder: Path) -> list[tuple[int, int, str]]:
    return [tuple(json.loads(line)) for line in (folder / "log").read_text().splitlines()]


class FaultyTrain(Train):
    """Trains children, some of which do what ``faults`` says of their cell when they are built."""

    def __init__(self, settings: Mapping[str, Any], data: str, faults: Mapping[str, str]) -> None:
        super().__init__(settings, data)
        self._faults = faults

    def measuring(self, proposal: Proposal, context: Context) -> Measuring:
        build = child.build_child

        def build_or_fail(cell: Cell, *others: Any) -> ChildNetwork:
            log(context.folder, context.number, str(cell))
            tries = len([line for line in logged(context.folder) if line[1] == context.number])
            fault = self._faults.get(str(cell), "")
            if fault and not (fault.endswith(" once") and tries > 1):
                getattr(Fault, fault.removesuffix(" once"))()
            return build(cell, *others)

        with patch.object(child, "build_child", build_or_fail):
            steps = super().measuring(proposal, context)
            try:
                first = next(steps)  # in which the child is built
            except StopIteration as end:
                found: Measurement = end.value
                return found
        yield first
        return (yield from steps)


class Fault:
    """What may happen in the midst of a child."""

    @staticmethod
    def exception() -> None:
        raise ValueError("this cell is cursed")

    @staticmethod
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def crash() -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)

    @staticmethod
    def memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    @staticmethod
    def hang() -> None:
        threading.Event().wait()

    @staticmethod
    def quota() -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/home/you/.cache")

    @staticmethod
    def disk() -> None:
        """From now on no file may grow beyond a kilobyte, as on a disk that is full but for that."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
