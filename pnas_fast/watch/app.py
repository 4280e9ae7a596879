"""What may be asked of a run's page, and by whom: a WSGI application that knows a short list of addresses.

Nothing of what is asked becomes part of a path: an address is in the list, or there is nothing there.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

from pnas_fast.watch.renewal import NOTHING, Document, Look

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

METHODS = ("GET", "HEAD")

_ALWAYS = [
    ("Cache-Control", "private, no-cache"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class App:
    """Answers GET and HEAD for a run's page, its figures and its trials.

    Args:
        look: tells what there is to see.
        names: hosts by which browsers may know the machine, in lower case: another name is somebody else's
            that was made to lead here, whose pages would read this one (DNS rebinding).
        numbers: whether any address in numbers may be used as well; that is never somebody else's name.
        token: the first part of every path, which whoever may look was told; empty where all may.
    """

    def __init__(self, look: Look, names: Collection[str], numbers: bool = False, token: str = "") -> None:
        self._look, self._names, self._numbers, self._token = look, names, numbers, token

    def __call__(self, environment: Environment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        status, document, more = self._answer(environment)
        policy = f"{document.policy}; frame-ancestors 'none'"
        headers = [*_ALWAYS, ("Content-Security-Policy", policy), *more]
        if status.startswith("304"):
            start(status, headers)
            return []
        headers += [("Content-Type", document.kind), ("Content-Length", str(len(document.content)))]
        start(status, headers)
        return [] if environment["REQUEST_METHOD"] == "HEAD" else [document.content]

    def _answer(self, environment: Environment) -> tuple[str, Document, list[tuple[str, str]]]:
        if not self._is_known(environment.get("HTTP_HOST", "")):
            return _refusal("421 Misdirected Request", "This machine is not known here by that name.")
        if environment["REQUEST_METHOD"] not in METHODS:
            return _refusal("405 Method Not Allowed", "Only GET and HEAD.", ("Allow", ", ".join(METHODS)))
        path: str = environment.get("PATH_INFO", "").removeprefix("/")
        if self._token:
            given, slash, path = path.partition("/")
            if not hmac.compare_digest(given.encode("latin-1"), self._token.encode()):
                return _refusal(
                    "403 Forbidden", "Use the whole address that was printed: it ends in a token."
                )
            if not slash:
                return _refusal("308 Permanent Redirect", "", ("Location", f"/{self._token}/"))
        shown = self._look()
        document = shown.documents.get(path)
        if document is None:
            return _refusal("404 Not Found", "There is nothing here.")
        if shown.fault:
            return "503 Service Unavailable", document, [("Retry-After", "3")]
        asked = environment.get("HTTP_IF_NONE_MATCH", "")
        same = document.tag in (tag.strip().removeprefix("W/") for tag in asked.split(","))
        return "304 Not Modified" if same else "200 OK", document, [("ETag", document.tag)]

    def _is_known(self, host: str) -> bool:
        """Whether a Host header names this machine; the port may be another one, such as a tunnel's."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.rstrip(".") in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._numbers


def _refusal(status: str, why: str, *headers: tuple[str, str]) -> tuple[str, Document, list[tuple[str, str]]]:
    return status, Document("text/plain; charset=utf-8", f"{why}\n".encode(), NOTHING), list(headers)
