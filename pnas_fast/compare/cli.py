"""The command line of a comparison: every option of a search, who is compared, and how often."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pnas_fast.cli.commands import Parser, add_batch_options, add_groups, choose_backend, take_limits
from pnas_fast.cli.ending import Limits
from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.parser import up_to
from pnas_fast.compare.plan import Plan, changed_plan, make_plan
from pnas_fast.compare.saved import check_folder, saved_plan
from pnas_fast.data import fetchable
from pnas_fast.engine import settings_source
from pnas_fast.search.cli import GROUPS
from pnas_fast.search.config import (
    PRESETS,
    SearchConfig,
    default_preset,
    device_note,
    preset,
)
from pnas_fast.search.strategy_options import STRATEGIES, takes

DESCRIPTION = """\
Compare strategies on the same children: run each of them several times, or take runs that exist, and say
how good the best 1, 5 and 25 cells are after so many children, images and seconds, and how many children
each strategy needs to reach a target, with the uncertainty of a few repeats. What is found is printed and
left in DIR: compare.html, figures, curves.csv and summary.json."""

EXAMPLES = """\
examples:
  python -m pnas_fast.compare --strategies progressive,random,evolution --budget 232 --out compared
  python -m pnas_fast.compare --out compared             continue one that was stopped
  python -m pnas_fast.compare --evaluator table:small.csv --operations sep3x3,max_pool3x3 --epochs 2
    --repeats 100 --budget 200 --out on-a-table          look every cell up in a file
  python -m pnas_fast.compare --from runs/a runs/b --out compared    searches that were run before

Options of a search that only some strategies have go to those. Each run lies in DIR/runs/STRATEGY-REPEAT,
an ordinary search of seed + repeat.

exit status: 0 done, 1 it cannot go on, 2 bad input, 75 asked to end by SIGTERM, SIGUSR1 or --max-hours: run
the same command again, 130 stopped by Ctrl-C."""

MOST_REPEATS = 10_000

RIVALS = [name for name in STRATEGIES if takes(name, "budget") or takes(name, "beam")]
"""Strategies that look for the best cell with a budget: what is compared where nobody says what is."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line asks for: a plan to carry out or folders to read, and what to say first."""

    folder: Path
    plan: Plan | None
    records: list[Path]
    download: bool
    target: float | None
    notes: list[str]
    limits: Limits


def parse(arguments: Sequence[str] | None = None) -> Request:
    """Read a command line; exits with status 2 and one line where it is not allowed.

    Raises:
        ConfigError, RunError: a value outside its limits, or a folder that cannot be used.
    """
    given = vars(_parser().parse_args(arguments))
    folder: Path = given.pop("out")
    records: list[Path] = given.pop("from_runs", [])
    target: float | None = given.pop("target", None)
    download = bool(given.pop("download", False))
    limits = take_limits(given)
    if records:
        others = [*map(_written, given), *["--download"] * download, *_of_limits(limits)]
        if others:
            raise ConfigError(
                f"--from with {others[0]}: the runs are as they are, allowed are --out and --target"
            )
        check_folder(folder)
        return Request(folder, None, records, False, target, [], limits)
    plan, notes = _plan(folder, given)
    return Request(folder, plan, [], download, target, notes, limits)


def _of_limits(limits: Limits) -> list[str]:
    usual = Limits()
    found = {"--max-hours": limits.hours != usual.hours, "--grace": limits.grace != usual.grace}
    return [name for name, given in found.items() if given]


def _plan(folder: Path, given: dict[str, Any]) -> tuple[Plan, list[str]]:
    """What is asked for; what is not said of a comparison that exists is as it is there."""
    saved = None if "preset" in given else saved_plan(folder)
    given.setdefault("fused", False)
    choose_backend(given)
    strategies = given.pop("strategies", RIVALS if saved is None else list(saved.configs))
    repeats = given.pop("runs", 5 if saved is None else saved.repeats)
    independent = given.pop("independent", False if saved is None else saved.independent)
    if saved is not None:
        return changed_plan(saved, strategies, given, repeats, independent), []
    base = preset(given.pop("preset", default_preset()))
    if given.get("evaluator", base.evaluator) == "train" and _has_tests(base, given):
        given["test_children"] = True
    plan, notes = make_plan(base, strategies, given, repeats, independent)
    asked = replace(base, device=given.get("device", base.device))
    note = device_note(asked, next(iter(plan.configs.values())))
    return plan, notes + ([] if note is None else [note])


def _has_tests(base: SearchConfig, given: Mapping[str, Any]) -> bool:
    """Whether the data set has images that choose nothing, by which cells are told then."""
    of_data = ("data", "image_size", "skip_unreadable", "cache")
    settings = replace(base, **{name: given[name] for name in of_data if name in given})
    return bool(settings_source(settings).describe().test_images)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m pnas_fast.compare", DESCRIPTION, EXAMPLES, only_given=True)
    group = parser.add_argument_group("the comparison")
    group.add_argument("--out", type=Path, metavar="DIR", required=True, help="the comparison's folder")
    group.add_argument(
        "--strategies",
        type=_strategies,
        metavar="A,B",
        help=f"what is compared, joined by commas [{','.join(RIVALS)}]",
    )
    group.add_argument(
        "--repeats",
        dest="runs",
        type=up_to(MOST_REPEATS),
        metavar="R",
        help="runs of each strategy, the first with --seed, the next with one more, and so on [5]",
    )
    group.add_argument(
        "--independent",
        action="store_true",
        help="train a cell anew in each run, or draw a replica of the table anew; else a cell has one "
        "accuracy in all runs and is trained once",
    )
    group.add_argument(
        "--from",
        dest="from_runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="compare these folders of searches, grouped by strategy, and run nothing",
    )
    group.add_argument(
        "--target", type=_fraction, metavar="X", help="an accuracy to reach, between 0 and 1, beside others"
    )
    group.add_argument("--preset", choices=PRESETS, help="where the defaults come from")
    group.add_argument("--fused", action="store_true", help="the fastest kernels, as by default")
    group.add_argument("--download", action="store_true", help=f"fetch {fetchable()} where it is missing")
    add_batch_options(group)
    own = {"strategy", "repeats"}
    groups = {title: [name for name in names if name not in own] for title, names in GROUPS.items()}
    presets = [preset(name) for name in PRESETS]
    add_groups(
        parser,
        groups,
        [item for item in fields(SearchConfig) if item.name not in own],
        lambda name: [getattr(values, name) for values in presets],
    )
    children = parser.add_argument_group("the size of children")
    children.add_argument(
        "--cell-repeats",
        dest="repeats",
        type=int,
        metavar="N",
        help=f"N: a child has 3N cells [{' / '.join(str(values.repeats) for values in presets)}]",
    )
    return parser


def _written(name: str) -> str:
    """An option as it is written, by the name that it has here."""
    renamed = {"runs": "repeats", "repeats": "cell-repeats"}
    return "--" + renamed.get(name, name).replace("_", "-")


def _strategies(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}, allowed are {' '.join(STRATEGIES)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names a strategy twice")
    return names


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is a number above 0 and up to 1")
    return value
