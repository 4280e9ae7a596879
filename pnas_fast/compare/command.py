"""What ``python -m pnas_fast.compare`` does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from pnas_fast.cli.commands import interrupt, one_line, output, say
from pnas_fast.cli.ending import Stop, handling, stop_status
from pnas_fast.compare.carrying import carry_out, evaluator_identity
from pnas_fast.compare.cli import Request, parse
from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.plan import Plan
from pnas_fast.compare.saved import settle_plan
from pnas_fast.compare.tables import ON_THE_PAGE, print_rigour, print_tables, tables_of
from pnas_fast.compare.writing import write_comparison
from pnas_fast.data.watching import watching
from pnas_fast.executors.fork_server import end_servers
from pnas_fast.protocols import MachineError, StrategyError
from pnas_fast.runs.folder import locked
from pnas_fast.runs.record import RunRecord
from pnas_fast.search.command import BAD_INPUT, quoted
from pnas_fast.search.placement import CPU
from pnas_fast.search.sources import opened, source_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    0 done, 1 a search cannot go on, 2 bad input, 75 asked to end by a batch system or its hours and to be run
    again, 130 stopped.
    """
    console = output()
    try:
        return _compare(console, parse(arguments))
    except KeyboardInterrupt as stop:  # before anything was begun
        return stop_status(stop)
    except (*BAD_INPUT, StrategyError, MachineError) as error:
        print(f"python -m pnas_fast.compare: error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, StrategyError | MachineError) else 2


def _compare(console: Console, request: Request) -> int:
    if request.plan is None:
        comparison = Comparison([RunRecord.load(folder) for folder in request.records])
        with locked(request.folder):
            return _conclude(console, request, comparison)
    for note in request.notes:
        say(console, note)
    # What nohup has ignored stays so.
    hang_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    stop = Stop(request.limits)
    try:
        with handling(interrupt, hang_up), stop.heard():
            return _carry_out(console, request, request.plan, stop)
    except KeyboardInterrupt as interrupted:
        say(
            console,
            "stopped; nothing finished is lost. "
            f"Continue with: python -m pnas_fast.compare --out {quoted(request.folder)}",
        )
        return stop_status(interrupted)


def _carry_out(console: Console, request: Request, plan: Plan, stop: Stop) -> int:
    config = next(iter(plan.configs.values()))
    if config.device != CPU:
        end_servers()  # workers of a GPU are not forked
    with watching(console, config.data) as watch:
        data = source_of(config, download=request.download, watch=watch)
        opened(config, data)
    identity = evaluator_identity(plan, data)
    plan.runs(request.folder)  # seeds beyond their limit are found before anything is written
    with locked(request.folder):
        settle_plan(request.folder, plan, identity)
        records = carry_out(plan, request.folder, data, console, stop)
        return _conclude(console, request, Comparison(records))


def _conclude(console: Console, request: Request, comparison: Comparison) -> int:
    summary = write_comparison(request.folder, comparison, request.target)
    print_tables(console, [table for table in tables_of(summary) if table.name not in ON_THE_PAGE])
    print_rigour(console, summary)
    say(console, f"page     {request.folder / 'compare.html'}")
    say(console, f"numbers  {request.folder / 'summary.json'}, {request.folder / 'curves.csv'}")
    return 0
