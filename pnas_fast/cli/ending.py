"""How a batch system ends a command: it asks, what runs has a while, and the exit status says to go on.

This module imports nothing but Python's own, so that a command can begin with it.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from pnas_fast.cli.streams import INTERRUPTED

GO_ON = 75
"""The exit status of a command that was asked to end before it was done (EX_TEMPFAIL): run it again."""

GRACE_SECONDS = 20.0
"""Slurm and Kubernetes kill 30 seconds after they have asked, and a last report takes some of them."""


BATCH_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What batch systems ask a command with to end."""


class Ending(KeyboardInterrupt):
    """A batch system has asked the command to end, or its hours are over: it is to be run again."""


def stop_status(stop: KeyboardInterrupt) -> int:
    """The exit status of a command that was stopped: `GO_ON`, or `INTERRUPTED` by a person."""
    return GO_ON if isinstance(stop, Ending) else INTERRUPTED


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a command may run from when this was made, and what runs when it is asked to end.

    Args:
        grace: seconds.
        hours: until the command asks itself.
    """

    grace: float = GRACE_SECONDS
    hours: float = math.inf
    began: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float:
        """Until the hours are over."""
        return max(0.0, self.began + 3600 * self.hours - time.monotonic())


class Stop:
    """Whether a command has been asked to end, by SIGTERM, by SIGUSR1 or because its hours are over.

    The first time, what runs is told to begin nothing more, and has its grace; once that is over `Ending`
    is raised in the main thread, as it is at once where nothing runs. Being asked again changes nothing.

    Args:
        limits: of the command.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._drain: Callable[[], None] | None = None
        self._before: tuple[Any, tuple[float, float]] | None = None
        self.why = ""

    @property
    def asked(self) -> bool:
        """Whether it has been asked; ``why`` says by what."""
        return bool(self.why)

    def drains(self, drain: Callable[[], None] | None) -> None:
        """Something runs from now on: it is told by ``drain``, in a signal's handler, to begin no more.

        None says that nothing runs any more.
        """
        self._drain = drain

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear of signals and hours, in the main thread."""
        with handling(self._hear, batch_signals()):
            try:
                if self._limits.hours < math.inf:
                    self._wake_in(self._limits.seconds_left())
                yield
            finally:
                self._let_sleep()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._ask(signal.Signals(number).name)

    def _ask(self, why: str) -> None:
        if self.why:
            return
        self.why = why
        if self._drain is None or not self._limits.grace:
            raise Ending
        self._drain()
        self._wake_in(self._limits.grace)

    def _wake(self, number: int, frame: FrameType | None) -> None:
        if self.why:
            raise Ending
        self._ask("--max-hours")

    def _wake_in(self, seconds: float) -> None:
        seconds = max(seconds, 1e-6)  # 0 is never
        if self._before is None:
            handler = signal.signal(signal.SIGALRM, self._wake)
            self._before = handler, signal.setitimer(signal.ITIMER_REAL, seconds)
        else:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _let_sleep(self) -> None:
        if self._before is not None:
            (handler, timer), self._before = self._before, None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)


def batch_signals() -> list[signal.Signals]:
    """What batch systems ask with, but for what whoever started the command has ignored."""
    return [number for number in BATCH_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Raise `Ending` where a batch system asks: for while nothing runs yet."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ending

    with handling(end, batch_signals()):
        yield


@contextmanager
def handling(
    handler: Callable[[int, FrameType | None], None], numbers: list[signal.Signals]
) -> Iterator[None]:
    """Have some signals handled, in the main thread."""
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in before:
            signal.signal(number, earlier)
