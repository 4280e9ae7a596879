"""``python -m pnas_fast.train``, alone or under ``torchrun``."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console

from pnas_fast.cli.commands import INTERRUPTED, download_bar, one_line
from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.streams import run_command
from pnas_fast.data import DataError, DataSet
from pnas_fast.engine import load_training_data
from pnas_fast.report.text import percent
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError, opened
from pnas_fast.runs.weights import BEST
from pnas_fast.threads import torch_threads
from pnas_fast.train.checkpoint import CheckpointError
from pnas_fast.train.cli import Request, parse
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.curves import CURVES
from pnas_fast.train.display import Display
from pnas_fast.train.group import Group, GroupError, joined, processes
from pnas_fast.train.history import Epoch, HistoryError
from pnas_fast.train.run import Run, Stop, Stopped, TrainError
from pnas_fast.train.training import LongTraining
from pnas_fast.version import VERSION

BAD_INPUT = (
    CheckpointError,
    ConfigError,
    DataError,
    GroupError,
    HistoryError,
    OSError,
    RunError,
    StoreError,
)
"""What says in one line what a person gave and what is allowed; anything else is a defect of ours."""


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 1 diverged, 2 bad input, 130 stopped by Ctrl-C."""
    try:
        request = parse(arguments, processes())
        with joined(request.config.device) as group:
            # Others than the first of a group have nothing to say that it would not.
            return _train(Console() if group.leads else Console(file=io.StringIO()), request, group)
    except KeyboardInterrupt:  # before training began
        return INTERRUPTED
    except (*BAD_INPUT, TrainError) as error:
        print(f"python -m pnas_fast.train: error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, TrainError) else 2


def _train(console: Console, request: Request, group: Group) -> int:
    config, folder = request.config, request.folder
    data = _load(console, request, group).to(config.device)
    with torch_threads(config.threads), _reproducible(), _stopping() as stop:
        # Before the folder is opened: what cannot be built is refused with nothing written.
        training = LongTraining(config, data, group)
        display = Display(console, config, training.steps)
        with opened(folder, config) if group.leads else nullcontext():
            display.note(_heading(config, training, group))
            try:
                history = Run(training, config, folder, data, group, display, stop).train()
            except Stopped:
                display.note(f"stopped; go on with: python -m pnas_fast.train --out {folder}")
                return INTERRUPTED
            finally:
                display.close()
    display.note(_summary(history, folder))
    return 0


def _load(console: Console, request: Request, group: Group) -> DataSet:
    if group.leads:
        with download_bar(console) as progress:
            data = load_training_data(request.config, download=request.download, progress=progress)
    group.wait()  # for the download
    return data if group.leads else load_training_data(request.config)


@contextmanager
def _reproducible() -> Iterator[None]:
    """Numbers too small to matter do not cost time, and a GPU's libraries choose what repeats itself."""
    before = torch.backends.cudnn.deterministic
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.backends.cudnn.deterministic = before


@contextmanager
def _stopping() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM ask a training to stop, which it does after the step it is at."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    before = [(number, signal.signal(number, ask)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _heading(config: TrainConfig, training: LongTraining, group: Group) -> str:
    beside = f" x {group.size} processes" if group.size > 1 else ""
    return (
        f"pnas_fast {VERSION} · {config.data} · N {config.repeats}, F {config.filters}, "
        f"{training.network.parameters_count:,} parameters, {config.epochs} epochs of {training.steps:,} "
        f"steps · {config.device}{beside}, {config.backend} kernels · {config.cell}"
    )


def _summary(history: list[Epoch], folder: Path) -> str:
    if not history:
        return f"trained already; weights in {folder / BEST}"
    best = max(history, key=lambda record: record.judged)
    return (
        f"best accuracy {percent(best.judged, 2)} on validation images, after epoch {best.epoch}; "
        f"weights in {folder / BEST}, curves in {folder / CURVES}"
    )


if __name__ == "__main__":
    sys.exit(main())
