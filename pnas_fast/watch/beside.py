"""The live page of a search, in a process of its own: nothing that its readers do reaches the search."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pnas_fast.executors import launch
from pnas_fast.watch.app import App
from pnas_fast.watch.renewal import Renewal
from pnas_fast.watch.serving import LOOPBACK_NAMES, Address, serve


@contextmanager
def shown_beside(folder: Path, port: int) -> Iterator[str]:
    """Show a run on this machine's loopback for as long as this process lives, and no longer than here.

    Args:
        folder: of the run, which may still be to come.
        port: as `Address` takes it.

    Yields:
        The page's address.

    Raises:
        ConfigError: as `Address`.
    """
    address = Address(port=port)
    with address.socket:
        number = address.socket.fileno()
        process = subprocess.Popen(
            launch.command(__name__, folder=str(folder.absolute()), number=number),
            pass_fds=[number],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
            env=launch.environment(),
        )
    try:
        yield address.url
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def main(folder: str, number: int) -> None:
    """Be that process: serve on a socket that was handed down, until nobody holds standard input any more."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    serve(App(Renewal(Path(folder)).look, LOOPBACK_NAMES), socket.socket(fileno=number))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)
