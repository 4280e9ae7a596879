"""The process of a tracker: its tool may hang, crash or print, and nobody else is held up.

It does what its input says until that ends. Where the run was killed, the tool is told so.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from typing import IO

import msgspec

from pnas_fast.foreign import printable, reason
from pnas_fast.tracking.messages import Answer, Begin, Finish, Message, Points, Tool

NICENESS = 10
"""Children that train come first."""

ORPHAN_SECONDS = 60.0
"""A tool whose run was killed has so long to say so."""


def main(tool: str) -> None:
    """Be the process of a tool, given as ``package.module:Class``."""
    os.nice(NICENESS)
    outlive(os.getppid(), ORPHAN_SECONDS)
    messages, answers = _channels()
    decode, encode = msgspec.json.Decoder(Message).decode, msgspec.json.encode
    made: Tool | None = None
    for line in messages:
        message = decode(line)
        try:
            if made is None:
                module, _, name = tool.partition(":")
                made = getattr(importlib.import_module(module), name)()
            answer = _act(made, message)
        except Exception as error:
            answer = Answer(error=printable(reason(error)))
        answers.write(encode(answer) + b"\n")
        answers.flush()
        if isinstance(message, Finish) or answer.error is not None:
            return
    if made is not None:
        made.finish(Finish("stopped"))


def outlive(parent: int, seconds: float) -> None:
    """End this process, and all it has started, so many seconds after another one is not its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        time.sleep(seconds)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _act(tool: Tool, message: Message) -> Answer:
    match message:
        case Begin():
            return Answer(tool.begin(message))
        case Points(points):
            tool.log(points)
        case Finish():
            tool.finish(message)
    return Answer()


def _channels() -> tuple[IO[bytes], IO[bytes]]:
    """What was standard input and output, which now lead nowhere: tools print, and ask for keys."""
    messages, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nowhere, number)
    return messages, answers
