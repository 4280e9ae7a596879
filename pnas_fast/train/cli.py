"""The command line of a long training: options made from the configuration's own fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pnas_fast.cli.commands import Parser, add_groups, add_run_options, choose_backend
from pnas_fast.cli.options import ConfigError
from pnas_fast.runs.folder import check_same, default_folder, saved_config
from pnas_fast.search.result import SearchResult
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.network import design, published_size

DESCRIPTION = """\
Train the network of one cell for long, as published results are made: auxiliary classifier, scheduled
drop-path, cutout, gradient clipping, cosine, averaged weights if asked for. The weights that judged best,
a history and its curves are left in the run's folder."""

EXAMPLES = """\
examples:
  python -m pnas_fast.train --fused --download             PNASNet-5's cell, 600 epochs on CIFAR-10
  python -m pnas_fast.train --run runs/paper --fused       the best cell of a search
  python -m pnas_fast.train --cell nasnet_a_cifar --fused  a published network
  python -m pnas_fast.train --cell 0:sep3x3+1:identity --data digits --auxiliary 0 --cutout 0 --epochs 9
  python -m pnas_fast.train --out runs/mine                go on with a training that was stopped
  torchrun --nproc-per-node 8 -m pnas_fast.train --batch 256 --learning-rate 0.2     on eight GPUs

It may be killed at any moment: the same command, or --out alone, goes on, on a CPU with the same bits as if
nothing had happened. Its configuration cannot be changed."""

_GROUPS = {
    "the network": ("cell", "repeats", "filters"),
    "the data": ("data", "train_images", "cutout"),
    "the recipe": (
        "epochs",
        "batch",
        "optimizer",
        "learning_rate",
        "weight_decay",
        "label_smoothing",
        "clip",
        "drop_path",
        "auxiliary",
        "ema",
        "seed",
    ),
    "the machine": ("backend", "device", "precision", "threads", "checkpoint_minutes"),
}
_NOT_OFFERED = {"time_limit"}  # a long training takes as long as it takes


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line asks for."""

    config: TrainConfig
    folder: Path
    download: bool


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
    _choose_cell(given, given.pop("run"))
    choose_backend(given)
    saved = None if out is None else saved_config(out, TrainConfig)
    config = replace(saved or TrainConfig(), **given).resolved(processes)
    design(config)  # a cell that is none is refused here
    folder = default_folder(config) if out is None else out
    if saved is not None:
        check_same(folder, saved, config)
    return Request(config, folder, download)


def _choose_cell(given: dict[str, Any], run: Path | None) -> None:
    if run is not None:
        if "cell" in given:
            raise ConfigError("--cell with --run: allowed is one of them")
        given["cell"] = str(SearchResult.load(run).best)
    for name, value in published_size(given.get("cell", "")).items():
        given.setdefault(name, value)


def _parser() -> Parser:
    parser = Parser("python -m pnas_fast.train", DESCRIPTION, EXAMPLES, only_given=True)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--run",
        type=Path,
        metavar="SEARCH",
        default=None,
        help="take the best cell of a search, by its folder",
    )
    add_run_options(run)
    items = [item for item in fields(TrainConfig) if item.name not in _NOT_OFFERED]
    add_groups(parser, _GROUPS, items, lambda name: [getattr(TrainConfig, name)])
    return parser
