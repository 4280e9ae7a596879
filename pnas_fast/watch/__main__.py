"""``python -m pnas_fast.watch``: a run's report in a browser, while its search goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pnas_fast.cli.commands import Parser, one_line
from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.streams import run_command
from pnas_fast.foreign import printable
from pnas_fast.watch.renewal import Renewal
from pnas_fast.watch.serving import LOOPBACK, PORT, Address, port_number, serve

DESCRIPTION = f"""\
Show the report of a search's folder in a browser, and renew it while the search goes on, until Ctrl-C. The
folder is only read, and nothing of it is shown but the page, its figures and trials.csv.

By default only this machine can ask ({LOOPBACK}). On any other --host whoever asks must know the address that
is printed once, which ends in a token; what is sent is not encrypted, so on a network that is not yours
rather leave the default and use a tunnel: ssh -L {PORT}:localhost:{PORT} MACHINE"""


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until it is stopped; 2 and one line where the folder is no run or nobody can listen there."""
    parser = Parser("python -m pnas_fast.watch", DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a search")
    parser.add_argument("--host", default=LOOPBACK, help=f"where to listen [{LOOPBACK}]")
    parser.add_argument(
        "--port",
        type=port_number,
        metavar="P",
        default=PORT,
        help=f"0 is any that is free, and so is {PORT} where that is taken [{PORT}]",
    )
    options = parser.parse_args(arguments)
    renewal = Renewal(options.run)
    try:
        address = Address(options.host, options.port)
    except ConfigError as error:
        parser.error(one_line(error))
    if fault := renewal.look().fault:
        parser.error(fault)
    print(printable(f"{options.run}: {address.url}"), flush=True)
    serve(address.app(renewal.look), address.socket)


if __name__ == "__main__":
    sys.exit(main())
