"""What commands share: options made from fields of a configuration, one-line errors, a download bar."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import MISSING, Field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pnas_fast.cli.ending import GO_ON, GRACE_SECONDS, Limits
from pnas_fast.cli.options import SWITCH, ConfigError, option_name
from pnas_fast.cli.parser import Parser as LineParser
from pnas_fast.cli.streams import INTERRUPTED as INTERRUPTED
from pnas_fast.foreign import printable

PATIENCE = 2.0
"""Seconds without a word."""


class Parser(LineParser):
    """Keeps the text of its description; with ``only_given`` its result leaves out what was not given."""

    def __init__(self, prog: str, description: str, epilog: str = "", *, only_given: bool = False) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS if only_given else None,
            allow_abbrev=False,
        )


def add_run_options(group: Any, fetchable: str = "the data set") -> None:
    """Add what every command that trains has beside its configuration: folder, kernels, download.

    Args:
        group: of the parser.
        fetchable: what a download can fetch, as `pnas_fast.data.fetchable` says it.
    """
    group.add_argument(
        "--out", type=Path, metavar="RUN", default=None, help="the run's folder [one under runs/]"
    )
    group.add_argument(
        "--fused",
        action="store_true",
        default=False,
        help="the fastest kernels this device has, as by default",
    )
    group.add_argument(
        "--download", action="store_true", default=False, help=f"fetch {fetchable} where it is missing"
    )


def add_batch_options(group: Any) -> None:
    """Add what commands have that run for long under a batch system; `take_limits` reads it."""
    group.add_argument(
        "--max-hours",
        type=_number(1e-9, 1e6),
        metavar="H",
        default=math.inf,
        help=f"begin nothing more after so many hours, end as if asked to, exit status {GO_ON} [no limit]",
    )
    group.add_argument(
        "--grace",
        type=_number(0, 1e6),
        metavar="SECONDS",
        default=GRACE_SECONDS,
        help="what SIGTERM, SIGUSR1 and --max-hours leave to what is running; what is done by then is kept, "
        f"exit status {GO_ON} [{GRACE_SECONDS:g}]",
    )


def take_limits(given: dict[str, Any]) -> Limits:
    """Take out of what was given what `add_batch_options` added."""
    return Limits(given.pop("grace"), given.pop("max_hours"))


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}, allowed is a number from {low:g} to {high:g}")
        return value

    return read


def output() -> Console:
    """Standard output: with colours and bars on a terminal, elsewhere lines without control characters.

    So it is whatever variables such as FORCE_COLOR say, which programs hand down that never see a log.
    """
    return Console(force_terminal=None if sys.stdout.isatty() else False)


def choose_backend(given: dict[str, Any]) -> None:
    """Take ``fused`` out of what was given, and let it choose the backend.

    Raises:
        ConfigError: another backend was asked for as well.
    """
    if given.pop("fused"):
        if given.get("backend") == "eager":
            raise ConfigError("--fused with --backend eager: allowed is one of them")
        given.setdefault("backend", "auto")


def add_groups(
    parser: Parser,
    groups: Mapping[str, Sequence[str]],
    items: Iterable[Field[Any]],
    defaults: Callable[[str], list[Any]],
) -> None:
    """Add a configuration's fields, all of them, in groups.

    Args:
        parser: of the command.
        groups: titles and the names of their fields.
        items: the fields.
        defaults: of a field, by its name: those of each preset.
    """
    left = {item.name: item for item in items}
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_option(group, left.pop(name), defaults(name))
    assert not left, f"options in no group: {sorted(left)}"


def _add_option(group: Any, item: Field[Any], defaults: list[Any]) -> None:
    """Add a configuration's field to a group of a parser, its help ending in the defaults."""
    assert item.default is not MISSING
    kind = type(item.default)
    if kind is bool:
        group.add_argument(option_name(item.name), action="store_true", help=item.metadata["help"])
        return
    if item.metadata["choices"] == SWITCH:
        add_switch(group, item.name, item.metadata["help"])
        return
    shown = item.metadata["shown"] or " / ".join(
        ",".join(value) if kind is tuple else str(value) for value in dict.fromkeys(defaults)
    )
    group.add_argument(
        option_name(item.name),
        action=_Extend if item.metadata["repeated"] else "store",
        type=_parts if kind is tuple else kind,
        metavar={int: "N", float: "X", str: "NAME", tuple: "A,B"}[kind],
        help=f"{item.metadata['help']}{_choices(item)} [{shown}]".replace("%", "%%"),
    )


def add_switch(group: Any, name: str, help: str) -> None:
    """Add ``--name`` and ``--no-name``, which say yes and no (`SWITCH`)."""
    group.add_argument(option_name(name), action="store_const", const="yes", help=help)
    group.add_argument(
        option_name(f"no_{name}"),
        dest=name,
        action="store_const",
        const="no",
        help=f"the opposite of {option_name(name)}",
    )


def _choices(item: Field[Any]) -> str:
    choices = item.metadata["choices"]
    described = choices is None or all(choice in item.metadata["help"] for choice in choices)
    return "" if described else f" ({', '.join(choices)})"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


class _Extend(argparse.Action):
    """Adds a tuple to what was given before."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *values))


def say(console: Console, text: str) -> None:
    """Print a line as it is: nothing in it is markup, and it is never broken."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def download_bar(
    console: Console, what: str = "the data set"
) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar that appears with the first bytes, for nothing is fetched as a rule.

    Args:
        console: where it appears.
        what: is fetched, such as the name of a data set.
    """
    columns = (
        TextColumn(f"fetching {what}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return _bar(Progress(*columns, console=console), patience=0)


def counting_bar(console: Console, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar that appears where something takes more than `PATIENCE` seconds.

    Args:
        console: where it appears.
        what: is done, such as "decoding" and a name.
    """
    columns = (
        TextColumn(what, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return _bar(Progress(*columns, console=console), PATIENCE)


@contextmanager
def _bar(bar: Progress, patience: float) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears when it is told how far something is, so many seconds after it was first told."""
    task = bar.add_task("")
    began: float | None = None

    def update(done: int, total: int) -> None:
        nonlocal began
        began = time.monotonic() if began is None else began
        if time.monotonic() - began >= patience:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler that does what Ctrl-C does."""
    raise KeyboardInterrupt


def one_line(error: Exception) -> str:
    """A message for people, without line breaks or what acts on a terminal."""
    return printable(" ".join(str(error).split()))
