"""Where a run's page is shown: an address, who may use it, and the server (waitress) behind it."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import logging
import os
import secrets
import socket
from contextlib import suppress
from typing import NoReturn

from pnas_fast.cli.options import ConfigError
from pnas_fast.watch.app import App
from pnas_fast.watch.renewal import Look

PORT = 8008
"""Where nobody says another one; the next that is free where it is taken."""

LOOPBACK = "127.0.0.1"

LARGEST_PORT = 65_535

LOOPBACK_NAMES = ("localhost", LOOPBACK, "::1")
"""By which a browser on this machine, or at the other end of a tunnel, may know it."""

_EXTRA = "pip install 'pnas_fast[live]'"
_NICENESS = 5
_SETTINGS = {
    "threads": 4,
    # Nothing is sent here, and nobody's headers are long.
    "max_request_body_size": 4096,
    "max_request_header_size": 16_384,
    # An answer stays in memory until its reader has it, however slow: a thread is free for the next at once.
    "outbuf_overflow": 1 << 30,
    "outbuf_high_watermark": 1 << 30,
    # One that reads nothing for so many seconds is given up.
    "channel_timeout": 60,
    "connection_limit": 50,
    "ident": None,
}


class Address:
    """A socket that listens, and who may ask there.

    Args:
        host: a name or number of this machine; any but the machine's own loopback needs a token.
        port: 0 is any that is free, and so is `PORT` where that is taken.

    Attributes:
        url: what to type into a browser, with the token where there is one.

    Raises:
        ConfigError: nobody can listen there, or the server is not installed.
    """

    def __init__(self, host: str = LOOPBACK, port: int = PORT) -> None:
        _require()
        self.host = host
        self.socket = _listening(host, port, other=port == PORT)
        number, taken = self.socket.getsockname()[:2]
        self.private = ipaddress.ip_address(number.partition("%")[0]).is_loopback
        self.token = "" if self.private else secrets.token_urlsafe(32)
        name = socket.gethostname() if number in ("0.0.0.0", "::") else host
        shown = f"[{name}]" if ":" in name else name
        self.url = f"http://{shown}:{taken}/" + (f"{self.token}/" if self.token else "")

    def app(self, look: Look) -> App:
        """What answers there."""
        names = {*LOOPBACK_NAMES, self.host.lower()}
        if not self.private:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return App(look, names, numbers=not self.private, token=self.token)


def serve(app: App, listening: socket.socket) -> NoReturn:
    """Answer until the process ends or is interrupted; whatever else the machine does comes first.

    Raises:
        KeyboardInterrupt: as it was.
    """
    from waitress import create_server

    with suppress(OSError):
        os.nice(_NICENESS)
    logging.getLogger("waitress").setLevel(logging.ERROR)  # or it would tell of every queue
    server = create_server(app, sockets=[listening], **_SETTINGS)
    server.run()  # which takes Ctrl-C for itself
    raise KeyboardInterrupt


def port_number(text: str) -> int:
    """The number of a port; 0 is any."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= LARGEST_PORT):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}, allowed is a port from 0 to {LARGEST_PORT}")
    return int(text)


def _require() -> None:
    try:
        importlib.import_module("waitress")
    except ImportError as error:
        raise ConfigError(f"the live page needs waitress ({error}); install it with: {_EXTRA}") from error


def _listening(host: str, port: int, other: bool) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except (OSError, UnicodeError) as error:
        if other and isinstance(error, OSError) and not isinstance(error, socket.gaierror):
            return _listening(host, 0, other=False)
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {host}, port {port} ({why}); choose another") from error
