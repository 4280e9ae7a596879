"""What ``python -m pnas_fast.search`` does."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnas_fast.cli.commands import interrupt, one_line, output, say
from pnas_fast.cli.ending import Ending, Stop, stop_status
from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataError
from pnas_fast.data.watching import watching
from pnas_fast.executors import ray_cluster
from pnas_fast.executors.fork_server import end_servers
from pnas_fast.protocols import EvaluatorError, MachineError, StrategyError
from pnas_fast.report.text import duration, magnitude, share
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError, default_folder
from pnas_fast.search.cli import Request, parse
from pnas_fast.search.placement import CPU
from pnas_fast.search.plan import Plan, make_plan
from pnas_fast.search.preflight import Load, PreflightError
from pnas_fast.search.result import SearchResult
from pnas_fast.search.run import Search, heading
from pnas_fast.search.sources import source_of
from pnas_fast.space import MAX_BLOCKS, CellError
from pnas_fast.tracking.trackers import check_usable
from pnas_fast.watch.beside import shown_beside

BAD_INPUT = (
    ConfigError, CellError, DataError, EvaluatorError, PreflightError, RunError, StoreError, OSError,
)  # fmt: skip
"""What says in one line what a person gave and what is allowed; anything else is a defect of ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    0 done, 1 the search cannot go on (no child could be trained, or the machine needs mending), 2 bad
    input, 75 asked to end by a batch system or its hours and to be run again, 130 stopped.
    """
    console = output()
    try:
        request = parse(arguments)
        if request.config.device != CPU or request.ray is not None:
            end_servers()  # workers of a GPU are not forked, nor those of a cluster
        if request.plan:
            _print_plan(console, request)
            return 0
        return _search(console, request)
    except KeyboardInterrupt as stop:  # before a run was opened: there is nothing to continue
        return stop_status(stop)
    except (*BAD_INPUT, StrategyError, MachineError) as error:
        print(f"python -m pnas_fast.search: error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, StrategyError | MachineError) else 2


def _search(console: Console, request: Request) -> int:
    config = request.config
    check_usable(request.track)
    if request.ray is not None:
        ray_cluster.require()
    with watching(console, config.data) as watch:
        data = source_of(config, download=request.download, watch=watch)
        folder = request.folder or default_folder(config, data.identity())
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, interrupt)
    notes = () if request.note is None else (request.note,)
    stop = Stop(request.limits)
    try:
        with stop.heard(), ExitStack() as stack:
            if request.ray is not None:
                stack.enter_context(ray_cluster.connected(request.ray.address))
            if request.serve is not None:
                url = stack.enter_context(shown_beside(folder, request.serve))
                notes = (*notes, f"the report, as it grows: {url}")
            result = Search(
                config, data, folder, console, notes, request.profiled, request.retry_failed,
                track=request.track, stop=stop, ray=request.ray,
            ).run()  # fmt: skip
    except KeyboardInterrupt as interrupted:
        # Ray's calls make its base class of what ends them.
        asked = request.ray is not None and stop.asked
        stopped = Ending() if asked else interrupted
        say(
            console,
            "stopped; nothing finished is lost. "
            f"Continue with: python -m pnas_fast.search --out {quoted(folder)}{_same_cluster(request)}",
        )
        return stop_status(stopped)
    console.print(_summary(result))
    for line in _next_steps(result):
        say(console, line)
    return 0


def _same_cluster(request: Request) -> str:
    """The options of a cluster, which a run does not remember."""
    if request.ray is None:
        return ""
    most = f" --max-children {request.ray.most}" if request.ray.most else ""
    return f" --executor ray --ray-address {request.ray.address}{most}"


def quoted(folder: Path) -> str:
    """A folder as a shell takes it."""
    return shlex.quote(str(folder))


def _summary(result: SearchResult) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in result.rows():
        table.add_row(name, Text(value))
    return table


def _next_steps(result: SearchResult) -> list[str]:
    """The commands that people want next."""
    if not result.weights.is_file():
        return []
    run = quoted(result.folder)
    more = min(result.config.blocks + 1, MAX_BLOCKS)
    return [
        "",
        "next:",
        f"  python -m pnas_fast.train --run {run}     # train the best cell for long",
        f"  python -m pnas_fast.export --run {run} --output best.onnx     # a file to deploy",
        f"  python -m pnas_fast.search --out {run} --blocks {more}     # search on, larger cells",
    ]


def _print_plan(console: Console, request: Request) -> None:
    config = request.config
    say(console, heading(config))
    if request.note:
        say(console, request.note)
    with console.status("trying a few random cells of each level") as status:

        def note(line: str) -> None:
            # What follows shows its own progress.
            status.stop()
            say(console, line)

        plan = make_plan(config, note)
    for load in plan.loads:
        say(console, _load_text(load))
    console.print(_plan_table(plan))
    say(
        console,
        f"{plan.children:,} children at most, {plan.images:,} images, about {duration(plan.hours * 3600)} "
        f"with {plan.placement}",
    )
    if finals := plan.finals.children:
        images, seconds = plan.finals.images, plan.finals.hours * 3600
        say(console, f"then {finals:,} final trainings, {images:,} images, about {duration(seconds)}")
    if plan.warning:
        say(console, plan.warning)


def _load_text(load: Load) -> str:
    planned = f", kernels for 1/{load.share} of it" if load.share > 1 else ""
    return (
        f"{load.children} at once on a GPU{planned}: {load.images_per_second:,.0f} images/s, "
        f"{load.used / 2**30:.1f} of {load.total / 2**30:.0f} GiB in use"
    )


def _plan_table(plan: Plan) -> Table:
    # Narrow, so that the paper's search fits in 80 columns.
    table = Table(box=None, padding=(0, 0, 0, 1))
    names = ["level", "cells", "scored\nat most", "share", "children", "images", "images/s\na child"]
    on_gpu = any(level.memory for level in plan.levels)
    for name in [*names, *["GiB a\nworker"] * on_gpu, "time"]:
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
