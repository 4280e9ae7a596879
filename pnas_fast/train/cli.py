"""The command line of a long training: options made from the configuration's own fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pnas_fast.cli.commands import (
    Parser,
    add_batch_options,
    add_groups,
    add_run_options,
    choose_backend,
    take_limits,
)
from pnas_fast.cli.ending import Limits
from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataSet, fetchable
from pnas_fast.engine.settings import OF_DATA
from pnas_fast.runs.config import saved_settings
from pnas_fast.runs.folder import CONFIG, RunError, check_same, default_folder, saved_config
from pnas_fast.runs.record import RunRecord
from pnas_fast.tracking.trackers import add_track_option
from pnas_fast.train.config import MACHINE, TrainConfig
from pnas_fast.train.initial import Initial
from pnas_fast.train.network import design, published_size
from pnas_fast.train.recipe import IN_HELP, check_suits, suited
from pnas_fast.train.seeds import seed_folder

DESCRIPTION = """\
Train the network of one cell for long, as published results are made: auxiliary classifier, scheduled
drop-path, cutout, gradient clipping, cosine, averaged weights if asked for. The weights that judged best,
a history and its curves are left in the run's folder; where the data have test images, their accuracy on
those is measured once, at the end. What is not asked for follows the size and number of
the images: with --run, that alone trains the best cell of a search on its data, with its N and F."""

EXAMPLES = """\
examples:
  python -m pnas_fast.train --run runs/quick               the best cell of a search, on its data
  python -m pnas_fast.train --download                     PNASNet-5's cell, 600 epochs on CIFAR-10
  python -m pnas_fast.train --cell nasnet_a_cifar          a published network
  python -m pnas_fast.train --cell 0:sep3x3+1:identity --data digits --epochs 9
  python -m pnas_fast.train --out runs/mine                go on with a training that was stopped
  python -m pnas_fast.train --run runs/quick --on all --seeds 5      test error, mean and deviation
  python -m pnas_fast.train --init runs/quick --data folder:photos   go on from its weights with other images
  torchrun --nproc-per-node 8 -m pnas_fast.train --search runs/paper --batch 256     on eight GPUs
                                 (--run by a name that torchrun does not take for one of its own)

It may be killed at any moment: the same command, or --out alone, goes on, on a CPU with the same bits as if
nothing had happened. It may go on elsewhere, on other cores, another device or another copy of its data; a
line says so where the last bits may differ. The rest of its configuration cannot be changed.

exit status: 0 done, 1 it cannot go on, 2 bad input, 75 asked to end by SIGTERM, SIGUSR1 or --max-hours: run
the same command again, 130 stopped by Ctrl-C."""

_GROUPS = {
    "the network": ("cell", "repeats", "filters", "init"),
    "the data": (
        "data",
        "train_images",
        "image_size",
        "skip_unreadable",
        "cache",
        "on",
        "flip",
        "crop_padding",
        "cutout",
    ),
    "the recipe": (
        "epochs",
        "batch",
        "optimizer",
        "learning_rate",
        "weight_decay",
        "label_smoothing",
        "class_weights",
        "clip",
        "drop_path",
        "auxiliary",
        "ema",
        "seed",
        "seeds",
    ),
    "the machine": ("backend", "device", "precision", "threads", "loaders", "checkpoint_minutes"),
}
# A long training takes as long as it takes.
_NOT_OFFERED = {"time_limit", "share", "init_identity", "data_identity", "test_identity"}


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line asks for.

    Attributes:
        asked: the run's configuration, or the defaults, with what was given.
        config: that, resolved for this machine.
        given: the names of fields that were given.
        saved: the configuration of the run that is gone on with, if its folder was named.
        out: the run's folder, if it was named.
        download: whether data may be fetched.
        track: names of trackers.
        limits: of its time.
    """

    asked: TrainConfig
    config: TrainConfig
    given: frozenset[str]
    saved: TrainConfig | None
    out: Path | None
    download: bool
    track: tuple[str, ...]
    limits: Limits

    def settled(self, data: DataSet, identity: str, tests: str = "") -> Settled:
        """What to do, now that the data set is known.

        Args:
            data: cut to ``train_images``.
            identity: digest of the whole data set.
            tests: digest of its test images; empty where there are none.

        Raises:
            ConfigError: settings that do not suit the images.
            RunError: the run's folder holds another run.
        """
        follow = suited(self.asked, data) if self.saved is None else {}
        free = {name: value for name, value in follow.items() if name not in self.given}
        seen = tests or self.asked.test_identity
        asked = replace(self.asked, data_identity=identity, test_identity=seen, **free)
        check_suits(asked, data)
        folder = default_folder(asked, identity) if self.out is None else self.out
        if self.saved is not None:
            check_same(folder, self.saved, asked)
        here = {name: getattr(self.config, name) for name in MACHINE}
        return Settled(asked, replace(asked, **here), folder, self.limits)


@dataclass(frozen=True, slots=True)
class Settled:
    """What is trained and where.

    Attributes:
        asked: the configuration as its folder keeps it.
        config: the same, resolved for this machine.
        folder: the run's.
        limits: of its time.
    """

    asked: TrainConfig
    config: TrainConfig
    folder: Path
    limits: Limits

    def each_seed(self) -> list[Settled]:
        """The single trainings of several seeds, each in a folder of its own."""
        pairs = zip(self.asked.each_seed(), self.config.each_seed(), strict=True)
        return [
            Settled(asked, config, seed_folder(self.folder, asked.seed), self.limits)
            for asked, config in pairs
        ]


def parse(arguments: Sequence[str] | None, processes: int) -> Request:
    """Read a command line; exits with status 2 and one line where it is not allowed.

    Args:
        arguments: those of the command line by default.
        processes: that train together.

    Raises:
        ConfigError, RunError: a value outside its limits, or a folder that cannot be used.
    """
    given = vars(_parser().parse_args(arguments))
    out: Path | None = given.pop("out")
    download: bool = given.pop("download")
    track = tuple(given.pop("track"))
    limits = take_limits(given)
    saved = None if out is None else saved_config(out, TrainConfig)
    initial = _initial(given, saved)
    theirs: dict[str, Any] = initial.settings() if initial is not None and saved is None else {}
    given = {name: value for name, value in theirs.items() if name != "cell"} | given
    _choose_cell(given, given.pop("run"))
    given = theirs | given
    choose_backend(given)
    asked = replace(saved or TrainConfig(), **given)
    design(asked)  # a cell that is none is refused here
    if initial is not None:
        initial.check(asked)
    if saved is not None and out is not None:
        # What the data are is looked at when they are loaded.
        check_same(out, saved, replace(asked, data=saved.data))
    config = asked.resolved_here(given.keys(), processes)
    return Request(asked, config, frozenset(given), saved, out, download, track, limits)


def _initial(given: dict[str, Any], saved: TrainConfig | None) -> Initial | None:
    """The weights that ``--init`` names; None where none are named, or those of a run whose file has gone."""
    init = given.get("init")
    if init is None:
        return None
    if not init:
        given["init_identity"] = ""
        return None
    if saved is not None and saved.init == init and not Path(init).exists():
        return None  # a training that goes on does without them
    initial = Initial.read(Path(init))
    given["init_identity"] = initial.identity
    return initial


def _choose_cell(given: dict[str, Any], run: Path | None) -> None:
    if run is not None:
        if "cell" in given:
            raise ConfigError("--cell with --run: allowed is one of them")
        best = RunRecord.load(run).best
        if best is None:
            raise RunError(f"--run {run}: no child of that search is trained yet")
        settings = saved_settings(run / CONFIG)
        given["cell"] = str(best.cell)
        for name in (*OF_DATA, "class_weights", "repeats", "filters"):
            given.setdefault(name, getattr(settings, name))
    for name, value in published_size(given.get("cell", "")).items():
        given.setdefault(name, value)


def _parser() -> Parser:
    parser = Parser("python -m pnas_fast.train", DESCRIPTION, EXAMPLES, only_given=True)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--run",
        "--search",
        type=Path,
        metavar="SEARCH",
        default=None,
        help="take the best cell of a search, with its data, N and F, by the search's folder",
    )
    add_run_options(run, fetchable())
    add_track_option(run)
    add_batch_options(run)
    items = [item for item in fields(TrainConfig) if item.name not in _NOT_OFFERED]
    add_groups(parser, _GROUPS, items, lambda name: [IN_HELP.get(name, getattr(TrainConfig, name))])
    return parser
