"""``python -m pnas_fast.compare``."""

from __future__ import annotations

import gc
import sys

from pnas_fast.cli.ending import ended_at_once, stop_status
from pnas_fast.cli.streams import run_command
from pnas_fast.cli.threads_env import wait_briefly
from pnas_fast.executors import fork_server


@run_command
def main() -> int:
    """Run the command, its workers' imports beside its own."""
    wait_briefly()
    try:
        with ended_at_once():
            if fork_server.AVAILABLE and not _trains_nothing(sys.argv):
                fork_server.fork_server("pnas_fast.executors.worker")
            from pnas_fast.compare import command

            gc.freeze()  # or every search for garbage would look at all that PyTorch has
            return command.main()
    except KeyboardInterrupt as stop:  # seconds in which nothing has begun
        return stop_status(stop)


def _trains_nothing(arguments: list[str]) -> bool:
    """Whether workers will not be needed, as far as can be told without reading options."""
    return any(word == "--from" or "table:" in word for word in arguments)


if __name__ == "__main__":
    sys.exit(main())
