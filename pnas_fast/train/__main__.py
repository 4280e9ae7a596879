"""``python -m pnas_fast.train``, alone or under ``torchrun``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pnas_fast.cli.ending import GO_ON, Ending, ended_at_once
from pnas_fast.cli.streams import run_command
from pnas_fast.cli.threads_env import wait_briefly


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """See `pnas_fast.train.command.main`."""
    wait_briefly()
    try:
        with ended_at_once():
            from pnas_fast.train.command import main as command  # takes seconds, in which signals are heard

            return command(arguments)
    except Ending:
        return GO_ON


if __name__ == "__main__":
    sys.exit(main())
