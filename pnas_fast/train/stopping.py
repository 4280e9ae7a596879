"""Ctrl-C, SIGTERM and SIGHUP: a training stops after the step it is at."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pnas_fast.cli.commands import interrupt
from pnas_fast.train.run import Stop


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does: for while nothing is being trained yet."""
    with _handling(interrupt, [number for number in _numbers() if number != signal.SIGINT]):
        yield


@contextmanager
def stopping() -> Iterator[Stop]:
    """Ctrl-C, SIGTERM and SIGHUP ask a training to stop."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    with _handling(ask, _numbers()):
        yield stop


def _numbers() -> list[signal.Signals]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup has it ignored, and means it.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@contextmanager
def _handling(handler: object, numbers: list[signal.Signals]) -> Iterator[None]:
    before = [(number, signal.signal(number, handler)) for number in numbers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, earlier in before:
            signal.signal(number, earlier)
