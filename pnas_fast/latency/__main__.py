"""``python -m pnas_fast.latency``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from pnas_fast.cli.commands import one_line
from pnas_fast.cli.streams import OutputClosed, run_command
from pnas_fast.export.errors import ExportError, require
from pnas_fast.latency.cli import PROGRAM, parse
from pnas_fast.objectives.device import DeviceError


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 2 bad input or a table that predicts badly."""
    options = parse(arguments)
    try:
        require("onnx", "onnxruntime", "PIL")
        # Here, because they need packages that were only now found to be there.
        from pnas_fast.latency import command

        run = {"measure": command.measure, "pack": command.pack, "fit": command.fit}[options.command]
        run(options, Console())
    except OutputClosed:
        raise
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped, nothing was written", file=sys.stderr)
        raise
    except (DeviceError, ExportError, OSError, MemoryError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
