"""What ``python -m pnas_fast.train`` does."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from pnas_fast.cli.commands import INTERRUPTED, one_line, output, say
from pnas_fast.cli.ending import GO_ON, Ending, stop_status
from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.streams import OutputClosed
from pnas_fast.data import DataError, DataSet, digest
from pnas_fast.data.augmentation import in_words
from pnas_fast.data.digest import test_digest
from pnas_fast.data.watching import watching
from pnas_fast.engine import load_training_data
from pnas_fast.evaluation.reasons import is_out_of_memory, reason
from pnas_fast.report.text import percent
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError, opened
from pnas_fast.runs.weights import BEST, WeightsError
from pnas_fast.threads import torch_threads
from pnas_fast.tracking.trackers import Tracking, check_usable
from pnas_fast.train.checkpoint import CheckpointError
from pnas_fast.train.cli import Request, Settled, parse
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.curves import CURVES
from pnas_fast.train.display import Display
from pnas_fast.train.group import Group, GroupError, joined, processes
from pnas_fast.train.heldout import TEST, tested_once
from pnas_fast.train.history import Epoch, HistoryError
from pnas_fast.train.recall import recall_text
from pnas_fast.train.run import Run, Stopped, TrainError
from pnas_fast.train.seeds import SEEDS, Outcome, seeds_text, write_seeds
from pnas_fast.train.stopping import ended_by_signals, stopping
from pnas_fast.train.tracked import KEPT, TrackedTraining
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
    WeightsError,
)
"""What says in one line what a person gave and what is allowed; anything else is a defect of ours."""


class Asked(Stopped):
    """A training was stopped by a batch system, or by its hours: it is to be run again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    0: done. 1: training diverged, or did not fit in memory. 2: bad input, or a disk that takes no more. 75:
    asked to end by SIGTERM, SIGUSR1 or its hours, and to be run again. 130: stopped by Ctrl-C or SIGHUP.
    """
    try:
        with ended_by_signals():
            request = parse(arguments, processes())
            check_usable(request.track)
            with joined(request.config.device) as group, _out_of_memory_said():
                # Others than the first of a group have nothing to say that it would not.
                return _carry_out(output() if group.leads else Console(file=io.StringIO()), request, group)
    except OutputClosed:
        raise
    except KeyboardInterrupt as stop:
        print(f"{PROGRAM}: stopped; nothing was being trained", file=sys.stderr)
        return stop_status(stop)
    except (*BAD_INPUT, TrainError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, TrainError) else 2


def _carry_out(console: Console, request: Request, group: Group) -> int:
    whole = _load(console, request, group)
    images = min(request.config.train_images, len(whole.train_labels))
    # The recipe is that of a training that chooses its epoch, with whatever images another one adds.
    suiting = whole.subset(images) if images else whole
    tests = "" if whole.test_images is None else test_digest(whole)
    settled = request.settled(suiting, digest(whole), tests)
    with torch_threads(settled.config.threads), _reproducible():
        try:
            if settled.config.seeds == 1:
                _train(console, settled, whole, group, request.track)
            else:
                _train_seeds(console, settled, whole, group, request.track)
        except Asked:
            return GO_ON
        except Stopped:
            return INTERRUPTED
    return 0


def _train_seeds(
    console: Console, settled: Settled, whole: DataSet, group: Group, track: Sequence[str]
) -> None:
    outcomes = [_train(console, each, whole, group, track, settled) for each in settled.each_seed()]
    if group.leads:
        write_seeds(settled.folder, outcomes)
    told = f"{seeds_text(outcomes)}; in {settled.folder / SEEDS}"
    say(console, told)


def _train(
    console: Console,
    settled: Settled,
    whole: DataSet,
    group: Group,
    track: Sequence[str],
    of: Settled | None = None,
) -> Outcome:
    """Train to the end, and test once where there are test images.

    Args:
        console: of whoever leads.
        settled: of a single seed.
        whole: all the data.
        group: of processes.
        track: names of trackers.
        of: the trainings of several seeds that this one belongs to.

    Raises:
        Stopped: as it was asked to; that has been said. `Asked`, if by a batch system or its hours.
    """
    config, folder = settled.config, settled.folder
    data = _trained_on(whole, config)
    # Before the folder is opened: what cannot be built is refused with nothing written.
    here = data.to(config.device)
    training = LongTraining(config, here, group)
    display = Display(console, config, training.steps)
    with stopping(settled.limits) as stop, ExitStack() as stack:
        stack.callback(display.close)
        stack.callback(training.close)
        for each in (of, settled):
            if each is not None and group.leads:
                stack.enter_context(opened(each.folder, each.asked))
        display.note(_heading(config, data, training, group))
        for line in _untested(settled, data):
            display.note(line)
        try:
            run = Run(training, config, folder, (of or settled).folder, data, group, display, stop)
            if track and group.leads:
                identity = settled.asked.digest(settled.asked.data_identity)
                tracking = Tracking(track, folder, identity, config.values(), display.note, KEPT)
                display.heard = TrackedTraining(stack.enter_context(tracking)).epoch
                for record in run.history:
                    display.heard(record)
            run.train()
            tested = tested_once(folder, here, config) if group.leads else None
            # Asked for while it tested, when all of this seed was done.
            if of is not None and group.any(stop.asked):
                raise Stopped
        except (Stopped, Ending) as end:
            display.note(f"stopped; go on with: {PROGRAM} --out {(of or settled).folder}")
            if stop.for_batch:
                raise Asked from end
            raise
        except TrainError as error:
            raise TrainError(f"seed {config.seed}: {error}" if of else str(error)) from error
    display.note(_summary(config, run.best, folder))
    if run.best is not None and run.best.recall is not None:
        display.note(f"validation: {recall_text(run.best.recall, data.class_names)}")
    if tested is not None:
        display.note(str(tested))
        if tested.recall is not None:
            display.note(f"test: {recall_text(tested.recall, data.class_names)}")
    return Outcome(config.seed, None if run.best is None else run.best.judged, tested)


def _trained_on(whole: DataSet, config: TrainConfig) -> DataSet:
    """The images that a training of one seed sees, and those that judge and test it."""
    data = whole.joined(config.seed) if config.on == "all" else whole
    return data.subset(config.train_images) if config.train_images else data


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


def _heading(config: TrainConfig, data: DataSet, training: LongTraining, group: Group) -> str:
    beside = f" x {group.size} processes" if group.size > 1 else ""
    parts = ", training and validation images" if config.on == "all" else ""
    weighted = f", class weights {config.class_weights}" if config.class_weights != "none" else ""
    auxiliary = f"auxiliary {config.auxiliary:g}" if config.auxiliary else "no auxiliary classifier"
    return (
        f"pnas_fast {VERSION} · {config.data}{parts} · N {config.repeats}, F {config.filters}, "
        f"{training.network.parameters_count:,} parameters, {config.epochs} epochs of {training.steps:,} "
        f"steps, {in_words(data.crop_padding, data.flip)}{weighted}, cutout {config.cutout}, "
        f"drop-path {config.drop_path:g}, {auxiliary} · "
        f"{config.device}{beside}, {config.backend} kernels · seed {config.seed} · {config.cell}"
    )


def _untested(settled: Settled, data: DataSet) -> list[str]:
    """A line where somebody who counts on a test error will get none."""
    config = settled.config
    if data.test_images is not None or (settled.folder / TEST).exists():
        return []
    if config.test_identity:
        return [f"{config.data} has no test images any more: there will be no test error"]
    if config.on == "all":
        return [f"{config.data} has no test images: nothing will say how good the result is"]
    return []


def _summary(config: TrainConfig, best: Epoch | None, folder: Path) -> str:
    if config.on == "all":
        weights = "averaged weights of the last epoch" if config.ema else "last weights"
        return (
            f"trained on training and validation images; {weights} in {folder / BEST}, "
            f"curves in {folder / CURVES}"
        )
    if best is None:
        return f"trained already; weights in {folder / BEST}"
    balanced = "" if best.balanced_accuracy is None else f" (balanced {percent(best.balanced_accuracy, 2)})"
    return (
        f"best accuracy {percent(best.judged, 2)} on validation images{balanced}, after epoch {best.epoch}; "
        f"weights in {folder / BEST}, curves in {folder / CURVES}"
    )
