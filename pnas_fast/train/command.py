"""What ``python -m pnas_fast.train`` does."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from pnas_fast.cli.commands import INTERRUPTED, one_line
from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.streams import OutputClosed
from pnas_fast.data import DataError, DataSet, digest
from pnas_fast.data.watching import watching
from pnas_fast.engine import load_training_data
from pnas_fast.evaluation.reasons import is_out_of_memory, reason
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
from pnas_fast.train.run import Run, Stopped, TrainError
from pnas_fast.train.stopping import ended_by_signals, stopping
from pnas_fast.train.training import LongTraining
from pnas_fast.version import VERSION

PROGRAM = "python -m pnas_fast.train"

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    0: done. 1: training diverged, or did not fit in memory. 2: bad input, or a disk that takes no more. 130:
    stopped by Ctrl-C, SIGTERM or SIGHUP.
    """
    try:
        with ended_by_signals():
            request = parse(arguments, processes())
            with joined(request.config.device) as group, _out_of_memory_said():
                # Others than the first of a group have nothing to say that it would not.
                return _train(Console() if group.leads else Console(file=io.StringIO()), request, group)
    except OutputClosed:
        raise
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; nothing was being trained", file=sys.stderr)
        return INTERRUPTED
    except (*BAD_INPUT, TrainError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, TrainError) else 2


def _train(console: Console, request: Request, group: Group) -> int:
    whole = _load(console, request, group)
    images = request.config.train_images
    data = whole.subset(images) if images else whole
    settled = request.settled(data, digest(whole))
    config, folder = settled.config, settled.folder
    with torch_threads(config.threads), _reproducible():
        # Before the folder is opened: what cannot be built is refused with nothing written.
        training = LongTraining(config, data.to(config.device), group)
        display = Display(console, config, training.steps)
        with stopping() as stop, opened(folder, settled.asked) if group.leads else nullcontext():
            display.note(_heading(config, training, group))
            try:
                run = Run(training, config, folder, data, group, display, stop)
                run.train()
            except Stopped:
                display.note(f"stopped; go on with: {PROGRAM} --out {folder}")
                return INTERRUPTED
            finally:
                display.close()
    display.note(_summary(run.best, folder))
    return 0


def _load(console: Console, request: Request, group: Group) -> DataSet:
    """The whole data set, in the CPU's memory."""
    settings = replace(request.config, train_images=0)
    try:
        if group.leads:
            with watching(console, request.config.data) as watch:
                data = load_training_data(settings, download=request.download, watch=watch)
        group.wait()  # for the download
        return data if group.leads else load_training_data(settings)
    except DataError as error:
        if request.saved is None or "data" in request.given:
            raise
        raise DataError(f"{error}; say with --data where the run's data lie now") from error


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
def _out_of_memory_said() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        why = reason(error)
        if not is_out_of_memory(why):
            raise
        raise TrainError(f"{why}; try a smaller --batch or --filters") from error


def _heading(config: TrainConfig, training: LongTraining, group: Group) -> str:
    beside = f" x {group.size} processes" if group.size > 1 else ""
    auxiliary = f"auxiliary {config.auxiliary:g}" if config.auxiliary else "no auxiliary classifier"
    return (
        f"pnas_fast {VERSION} · {config.data} · N {config.repeats}, F {config.filters}, "
        f"{training.network.parameters_count:,} parameters, {config.epochs} epochs of {training.steps:,} "
        f"steps, cutout {config.cutout}, drop-path {config.drop_path:g}, {auxiliary} · "
        f"{config.device}{beside}, {config.backend} kernels · {config.cell}"
    )


def _summary(best: Epoch | None, folder: Path) -> str:
    if best is None:
        return f"trained already; weights in {folder / BEST}"
    return (
        f"best accuracy {percent(best.judged, 2)} on validation images, after epoch {best.epoch}; "
        f"weights in {folder / BEST}, curves in {folder / CURVES}"
    )
