"""The command line of latencies."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pnas_fast.cli.commands import Parser
from pnas_fast.cli.parser import up_to
from pnas_fast.latency.time_networks import ROUNDS, SCRIPT, TIMES
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.device import layout_of
from pnas_fast.threads import cores

PROGRAM = "python -m pnas_fast.latency"

DESCRIPTION = """\
Find out how long networks take on a device, so that a search can tell before it trains a cell. 80 networks of
the layout to be deployed are timed where they will run. A table is fitted to 60 of them: what each operation
takes on each kind of input. It must predict the others, or no file is written."""

EXAMPLES = f"""\
examples:
  python -m pnas_fast.latency measure --device cpu --deploy repeats=6,filters=44,image=32 --out here.json
  python -m pnas_fast.latency pack --deploy repeats=6,filters=44,image=32 --out phone
      then, on the phone, which has Python, onnxruntime and numpy:  python phone/{SCRIPT}
  python -m pnas_fast.latency fit phone/{TIMES} --out phone.json"""

LAYOUT = "repeats=N,filters=F,image=S[,batch=M]"

MOST_THREADS, MOST_ROUNDS = 1024, 10_000


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read a command line; exits with status 2 and one line where it is not allowed."""
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> Any:
        return commands.add_parser(name, help=help, description=help)

    measure = command("measure", "time networks on this machine and write its file")
    measure.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what runs them [cpu]")
    measure.add_argument(
        "--runtime",
        choices=("onnxruntime", "torch"),
        default="onnxruntime",
        help="onnxruntime: exported files; torch: eager PyTorch [onnxruntime]",
    )
    measure.add_argument(
        "--threads",
        type=up_to(MOST_THREADS),
        default=cores(),
        metavar="N",
        help="of the CPU; of 1 the processor's time is taken, which other programs disturb less [one a core]",
    )
    measure.add_argument(
        "--rounds",
        type=up_to(MOST_ROUNDS),
        default=ROUNDS,
        metavar="N",
        help=f"turns of each network, of which the fastest counts [{ROUNDS}]",
    )
    pack = command("pack", f"write a folder of networks with {SCRIPT}, to time on another machine")
    fit = command("fit", f"make a device's file from the {TIMES} of such a folder")
    fit.add_argument("times", type=Path, metavar=f"FOLDER/{TIMES}", help=f"what {SCRIPT} wrote there")
    for one in (measure, pack):
        one.add_argument(
            "--deploy", type=_layout, metavar=LAYOUT, required=True, help="layout of the networks"
        )
    for one in (measure, fit):
        one.add_argument("--out", type=Path, metavar="FILE", required=True, help="the device's file, JSON")
        one.add_argument("--force", action="store_true", help="write it even if it predicts badly")
    pack.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="a new folder")
    options = parser.parse_args(arguments)
    _check_out(options, parser.error)
    return options


def _check_out(options: argparse.Namespace, error: Callable[[str], Any]) -> None:
    """Refuse a place that cannot be written to before anything is timed."""
    out: Path = options.out
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        error(f"--out {out}: {out.parent} is not a folder that can be written to")
    if options.command == "pack" and out.exists():
        error(f"--out {out}: is there already, expected a new name")
    if options.command != "pack" and out.exists() and not out.is_file():
        error(f"--out {out}: is no file, expected a file or a new name")


def _layout(text: str) -> Deployment:
    try:
        return layout_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
