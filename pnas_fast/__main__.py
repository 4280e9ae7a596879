"""``python -m pnas_fast``: which commands there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pnas_fast.cli.parser import Parser
from pnas_fast.cli.streams import run_command

COMMANDS = {
    "search": "search for a cell, or say what that would cost",
    "compare": "compare strategies: run each several times, or take runs that exist",
    "train": "train the network of one cell for long, as published results are made",
    "report": "write the page that explains a search",
    "watch": "show that page in a browser while the search goes on",
    "export": "write a trained network to an ONNX file, and check it",
    "infer": "classify images with such a file, or time it",
    "latency": "measure how long networks take on a device, for searches that go by it",
    "data": "say what a data set is: classes, images, a sheet of them",
    "zoo": "list the published networks, with their figures as counted here",
    "kernel_tools.cost": "count what a training step launches, computes and moves",
    "kernel_tools.inspect": "compile the Triton kernels for a GPU and list what they need",
    "kernel_tools.warm": "compile the Triton kernels that a search will need",
    "kernel_tools.tune": "choose the Triton kernels' tiles on the GPU here",
}
"""What ``python -m pnas_fast.NAME`` does, by its name."""


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each command."""
    Parser(
        prog="python -m pnas_fast",
        description="List the commands of pnas_fast; each of them explains itself with --help.",
    ).parse_args(arguments)
    width = max(map(len, COMMANDS))
    for name, does in COMMANDS.items():
        print(f"python -m pnas_fast.{name:{width}}  {does}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
