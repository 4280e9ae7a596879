"""Signals: a training stops after the step it is at, or after its grace wherever it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pnas_fast.cli.commands import interrupt
from pnas_fast.cli.ending import Limits, ended_at_once, handling
from pnas_fast.cli.ending import Stop as BatchStop
from pnas_fast.train.run import Stop


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End at once, for while nothing is being trained yet: SIGHUP does what Ctrl-C does."""
    with handling(interrupt, _hanging_up()), ended_at_once():
        yield


@contextmanager
def stopping(limits: Limits) -> Iterator[Stop]:
    """Ctrl-C and SIGHUP ask a training to stop, and so do SIGTERM, SIGUSR1 and the end of its hours.

    Raises:
        Ending: the latter asked, and it has not stopped within its grace.
    """
    stop, batch = Stop(), BatchStop(limits)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.ask()

    batch.drains(lambda: stop.ask(for_batch=True))
    with handling(ask, [signal.SIGINT, *_hanging_up()]), batch.heard():
        yield stop


def _hanging_up() -> list[signal.Signals]:
    # nohup has it ignored, and means it.
    return [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
