"""``python -m pnas_fast.report``: the page of a run, at any time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pnas_fast.cli.commands import INTERRUPTED, Parser, one_line
from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.streams import run_command
from pnas_fast.protocols import MachineError
from pnas_fast.report.page import write_report
from pnas_fast.report.text import printable
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError

DESCRIPTION = """\
Write RUN/report.html, RUN/trials.csv and RUN/figures/*.svg of a search's folder, whether the search is
finished, stopped, still running or of an earlier version, and print the path of the page."""


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Write a page; 0, or 2 and one line where the folder is no run or cannot be written."""
    parser = Parser("python -m pnas_fast.report", DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a search")
    options = parser.parse_args(arguments)
    try:
        page = write_report(options.run)
    except (RunError, ConfigError, StoreError, MachineError, OSError) as error:
        parser.error(one_line(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    print(printable(str(page)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
