"""A part of `bench/lease.py` in a process of its own, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lease_parts import Lease, Part

Report = dict[str, Any]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal asks for an end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stop_by_signals() -> Iterator[None]:
    """While it lasts, the first of `SIGNALS` raises `Stopped`; those after it do nothing: a table is due."""

    def stop(number: int, _: object) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def run_part(part: Part, lease: Lease, seconds: float) -> None:
    """Put a part's row into the report: ``status``, ``seconds``, ``result``, and where it failed why.

    The process is forked, which takes no time; this one never uses the card, or those could not.

    Raises:
        Stopped: the row is there all the same.
    """
    begin, answer, log = time.monotonic(), lease.folder / "answer.json", lease.folder / "log"
    answer.unlink(missing_ok=True)
    status = "stopped"
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _be_part(part, lease, answer, log)
    try:
        code = _wait(process, begin + seconds)
        status = "done" if code == 0 else f"died, exit status {code}"
        if code is None:
            status = f"ended after {seconds:.0f} s"
    finally:
        _kill(process)
        row = {"status": status, "seconds": round(time.monotonic() - begin, 1), "result": None}
        if answer.exists():
            row |= json.loads(answer.read_text(encoding="utf-8"))
        if status != "done":
            row["log"] = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""
        lease.report["parts"][part.name] = row


def _be_part(part: Part, lease: Lease, answer: Path, log: Path) -> NoReturn:
    """The forked process: what it prints goes into the log, what it returns into the answer."""
    code = 70
    try:
        os.setsid()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for place in (1, 2):
            os.dup2(written, place)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = sys.stderr = os.fdopen(written, "w", encoding="utf-8", errors="replace", buffering=1)
        kept: list[Any] = [None]

        def keep(result: Any) -> None:
            kept[0] = result
            write_json(answer, {"result": result})

        try:
            keep(part.run(lease._replace(keep=keep)))
            code = 0
        except Exception:
            why = traceback.format_exc()[-4000:]
            write_json(answer, {"result": kept[0], "status": "failed", "why": why})
            sys.stderr.write(why)
            code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(process: int, until: float) -> int | None:
    """The exit status, negative for a signal; None where it is still running then."""
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _kill(process: int) -> None:
    """The process, where it still runs, and all that it started and left."""
    # Before it has a session of its own there is no group of that number.
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            end(process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, 0)


def write_json(path: Path, value: Any) -> None:
    """Under a temporary name first; a text as it is. Numbers that JSON has none for become texts."""
    text = value if isinstance(value, str) else json.dumps(_finite(value), indent=1, ensure_ascii=False)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(own) for own in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
