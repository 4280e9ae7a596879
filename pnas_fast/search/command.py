"""What ``python -m pnas_fast.search`` does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pnas_fast.cli.commands import INTERRUPTED, download_bar, interrupt, one_line
from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataError
from pnas_fast.engine import load_training_data
from pnas_fast.executors.fork_server import end_servers
from pnas_fast.executors.pool import ExecutorError
from pnas_fast.report.text import magnitude, share
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.store import StoreError
from pnas_fast.search.cli import Request, parse
from pnas_fast.search.display import choose_display, duration
from pnas_fast.search.loop import SearchError
from pnas_fast.search.placement import CPU
from pnas_fast.search.plan import Plan, describe_devices, make_plan
from pnas_fast.search.preflight import Load, PreflightError
from pnas_fast.search.result import SearchResult
from pnas_fast.search.run import heading, run
from pnas_fast.space import CellError

BAD_INPUT = (
    ConfigError, CellError, DataError, ExecutorError, PreflightError, RunError, StoreError, OSError,
)  # fmt: skip
"""What says in one line what a person gave and what is allowed; anything else is a defect of ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 1 no child could be trained, 2 bad input, 130 stopped."""
    console = Console()
    try:
        request = parse(arguments)
        if request.config.device != CPU:
            end_servers()  # workers of a GPU are not forked
        if request.plan:
            _print_plan(console, request)
            return 0
        return _search(console, request)
    except KeyboardInterrupt:  # before a run was opened: there is nothing to continue
        return INTERRUPTED
    except (*BAD_INPUT, SearchError) as error:
        print(f"python -m pnas_fast.search: error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, SearchError) else 2


def _search(console: Console, request: Request) -> int:
    config = request.config
    with download_bar(console) as progress:
        data = load_training_data(config, download=request.download, progress=progress)
    if request.note:
        console.print(request.note, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, interrupt)
    display = choose_display(console)
    try:
        result = run(config, data, request.folder, display, request.profiled)
    except KeyboardInterrupt:
        display.close()
        console.print(
            "stopped; nothing finished is lost. Continue with: "
            f"python -m pnas_fast.search --out {request.folder}",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    finally:
        display.close()
    console.print(_summary(result))
    return 0


def _summary(result: SearchResult) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    best = int((result.trials.cell == str(result.best)).argmax())
    failed = int((result.trials.status == "failed").sum())
    table.add_row("best cell", str(result.best))
    table.add_row("accuracy", f"{result.accuracy:.2%} on validation images")
    parameters, multiply_adds = result.trials.parameters[best], result.trials.multiply_adds[best]
    table.add_row("size", f"{parameters:,} parameters, {multiply_adds:,} multiply-adds an image")
    children = f"{len(result.trials):,} children" + (f" ({failed} failed)" if failed else "")
    table.add_row(
        "cost",
        f"{result.images_seen:,} images, {children}, {duration(result.trials.seconds.sum())} of training",
    )
    table.add_row("report", str(result.report))
    table.add_row("weights", str(result.weights))
    return table


def _print_plan(console: Console, request: Request) -> None:
    config = request.config
    console.print(heading(config), highlight=False, soft_wrap=True)
    if request.note:
        console.print(request.note, highlight=False, soft_wrap=True)
    with console.status("trying a few random cells of each level") as status:

        def note(line: str) -> None:
            # What follows shows its own progress.
            status.stop()
            console.print(line, highlight=False)

        plan = make_plan(config, note)
    for load in plan.loads:
        console.print(_load_text(load), highlight=False)
    console.print(_plan_table(plan))
    console.print(
        f"{plan.children:,} children at most, {plan.images:,} images, about {duration(plan.hours * 3600)} "
        f"with {describe_devices(plan.devices)}",
        highlight=False,
        soft_wrap=True,
    )


def _load_text(load: Load) -> str:
    return (
        f"{load.children} at once on a GPU: {load.images_per_second:,.0f} images/s, "
        f"{load.used / 2**30:.1f} of {load.total / 2**30:.0f} GiB in use"
    )


def _plan_table(plan: Plan) -> Table:
    # Narrow, so that the paper's search fits in 80 columns.
    table = Table(box=None, padding=(0, 0, 0, 1))
    names = ["level", "cells", "scored\nat most", "share", "children", "images", "images/s\na worker"]
    on_gpu = any(level.memory for level in plan.levels)
    for name in [*names, *["GiB a\nchild"] * on_gpu, "time"]:
        table.add_column(name, justify="right")
    for level in plan.levels:
        table.add_row(
            str(level.level),
            magnitude(level.distinct),
            f"{level.candidates:,}",
            share(level.share),
            f"{level.children:,}",
            magnitude(level.images),
            f"{level.images_per_second:,.0f}",
            *[f"{level.memory / 2**30:.2f}"] * on_gpu,
            duration(level.hours * 3600),
        )
    return table
