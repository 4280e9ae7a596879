"""The command line of a search: options made from the configuration's own fields."""

from __future__ import annotations

import argparse
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
from pnas_fast.data import fetchable
from pnas_fast.engine.few_shot import OPTIONS as FEW_SHOT
from pnas_fast.engine.few_shot import REPTILE, check_evaluator
from pnas_fast.executors.ray_cluster import AUTO, MOST_SLOTS, Wish
from pnas_fast.runs.folder import check_same, saved_config
from pnas_fast.search.config import (
    PRESETS,
    TABLE,
    SearchConfig,
    default_preset,
    device_note,
    preset,
)
from pnas_fast.search.profiled import Profiled
from pnas_fast.search.strategy_options import check_belongs
from pnas_fast.tracking.trackers import add_track_option
from pnas_fast.watch.serving import PORT, port_number

DESCRIPTION = """\
Neural architecture search for the images you have, by default Progressive NAS (Liu et al., ECCV 2018): train
every one-block cell, fit a surrogate to their accuracies, grow the cells by a block, let the surrogate
choose which of the many candidates to train, and so on. The best cell, its weights and a report that
explains the search are left in the run's folder."""

EXAMPLES = """\
examples:
  python -m pnas_fast.search                             minutes on a CPU, bundled data
  python -m pnas_fast.search --preset paper --plan       what the paper's search would cost here
  python -m pnas_fast.search --preset paper --data cifar10:data/cifar10 --download
  python -m pnas_fast.search --strategy random --budget 100
  python -m pnas_fast.search --out runs/mine             continue a run that was stopped
  python -m pnas_fast.search --out runs/mine --blocks 4  make a finished one go further

A run is continued by the same command, or by --out alone. --blocks, --beam, --epochs, --budget, --cells,
--replicas, --finalists and --final-replicas may be raised; it may go on with other data folders, devices,
kernels and time limits; nothing else changes.

exit status: 0 done, 1 it cannot go on, 2 bad input, 75 asked to end by SIGTERM, SIGUSR1 or --max-hours: run
the same command again, 130 stopped by Ctrl-C."""

GROUPS = {
    "the search": (
        "strategy", "evaluator", "blocks", "operations", "first_level", "beam", "predictor", "learn",
        "refit", "kappa", "budget", "lag", "population", "sample", "retrain", "candidates",
        "cells", "replicas", "policy", "algorithm", "controller_rate", "batch_of_proposals", "seed",
        "evaluation_seed", "draw_replicas",
    ),
    "what cells are for": ("objectives", "limit", "deploy", "device_file", "explore"),
    "the final choice": ("finalists", "final_replicas", "final_epochs"),
    "the data": (
        "data", "train_images", "test_children", "image_size", "skip_unreadable", "cache", "flip",
        "crop_padding", "cutout",
    ),
    "the children": ("repeats", "filters", "drop_path"),
    "their training": (
        "epochs", "batch", "optimizer", "learning_rate", "weight_decay", "label_smoothing",
        "class_weights", "clip", "time_limit",
    ),
    "learning from few images (reptile)": FEW_SHOT,
    "the machine": (
        "backend", "device", "precision", "workers", "children_per_gpu", "share", "threads", "loaders",
    ),
}  # fmt: skip
"""The options of a configuration, in the groups of ``--help``."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line asks for: a resolved configuration, what to do with it, and what to say first.

    ``folder`` is None where it follows from the configuration and the data.
    """

    config: SearchConfig
    folder: Path | None
    plan: bool
    download: bool
    retry_failed: bool
    profiled: Profiled | None
    track: tuple[str, ...]
    note: str | None
    limits: Limits
    serve: int | None
    ray: Wish | None


def parse(arguments: Sequence[str] | None = None) -> Request:
    """Read a command line; exits with status 2 and one line where it is not allowed.

    Raises:
        ConfigError, RunError: a value outside its limits, or a folder that cannot be used.
    """
    given = vars(_parser().parse_args(arguments))
    out: Path | None = given.pop("out")
    plan, download, retry = given.pop("plan"), given.pop("download"), given.pop("retry_failed")
    track = tuple(given.pop("track"))
    limits, serve = take_limits(given), given.pop("serve")
    ray = _take_wish(given)
    chosen_preset: str | None = given.pop("preset")
    choose_backend(given)
    saved = None if out is None else saved_config(out, SearchConfig)
    base = (None if chosen_preset else saved) or preset(chosen_preset or default_preset())
    profile = given.pop("profile")
    profiled = None if profile is None else Profiled(profile)
    strategy = given.pop("strategy", base.strategy)
    check_belongs(strategy, list(given))
    evaluator = given.get("evaluator", base.evaluator)
    check_evaluator(evaluator, given)
    if evaluator == REPTILE and (plan or profiled):
        name = "plan" if plan else "profile"
        raise ConfigError(f"--{name} with --evaluator {REPTILE}, allowed are other evaluators")
    if ray is not None:
        _check_remote(evaluator, plan, "workers" in given)
    asked = replace(base.for_strategy(strategy), **given)
    config = asked.resolved(elsewhere=ray is not None)
    if saved is not None and out is not None:
        check_same(out, saved, config)
    note = device_note(asked, config, elsewhere=ray is not None)
    return Request(config, out, plan, download, retry, profiled, track, note, limits, serve, ray)


def _take_wish(given: dict[str, Any]) -> Wish | None:
    """Take the options of a cluster out of what was given; None where children train on this machine."""
    executor, address, most = (given.pop(name) for name in ("executor", "ray_address", "max_children"))
    if executor == "ray":
        return Wish(address or AUTO, most or 0)
    for name, value in (("--ray-address", address), ("--max-children", most)):
        if value is not None:
            raise ConfigError(f"{name} with --executor {executor}, allowed is --executor ray")
    return None


def _check_remote(evaluator: str, plan: bool, workers: bool) -> None:
    """Raise `ConfigError` for what has no sense on a cluster."""
    if evaluator.startswith(TABLE):
        raise ConfigError(f"--executor ray with --evaluator {TABLE}FILE, allowed is --executor local")
    if plan:
        raise ConfigError("--executor ray with --plan, allowed is --executor local: it tries children here")
    if workers:
        raise ConfigError("--workers with --executor ray, allowed is --max-children, which counts there")


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m pnas_fast.search", DESCRIPTION, EXAMPLES, only_given=True)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--preset",
        choices=PRESETS,
        default=None,
        help="where the defaults come from: quick (no GPU) or paper (with one)",
    )
    add_run_options(run, fetchable())
    add_track_option(run)
    add_batch_options(run)
    run.add_argument(
        "--serve",
        type=port_number,
        nargs="?",
        const=PORT,
        default=None,
        metavar="PORT",
        help="show the report in a browser on this machine while the search runs "
        f"[{PORT}, or another where that is taken]",
    )
    _add_executor_options(run)
    run.add_argument(
        "--plan",
        action="store_true",
        default=False,
        help="try a few children for seconds and say what this would cost, in images and hours, and stop",
    )
    run.add_argument(
        "--retry-failed",
        action="store_true",
        default=False,
        help="train children again that failed before, for instance with a longer --time-limit",
    )
    run.add_argument(
        "--profile",
        metavar="CELL|NUMBER",
        nargs="?",
        const="0",
        default=None,
        help="trace a few steps of one child, the first where none is named, into RUN/trace-NUMBER.json",
    )
    presets = [preset(name) for name in PRESETS]
    add_groups(
        parser, GROUPS, fields(SearchConfig), lambda name: [getattr(values, name) for values in presets]
    )
    return parser


def _add_executor_options(group: Any) -> None:
    group.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where children train: on this machine, or in a Ray cluster (pip install 'pnas_fast[ray]') "
        "[local]",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        default=None,
        help="auto, the cluster that this machine is part of; local, one of this search's own; or HOST:PORT "
        "[auto]",
    )
    group.add_argument(
        "--max-children",
        type=_slots,
        metavar="N",
        default=None,
        help="ask the Ray cluster for so many children side by side at most, also where there are no nodes "
        "for them yet [as many as its nodes have room for]",
    )


def _slots(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= MOST_SLOTS):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}, allowed is a number from 1 to {MOST_SLOTS}")
    return int(text)
