"""Running time: of this thread and of other processes, without what passes while they are stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pnas_fast import running
from pnas_fast.running import LONGEST_LOOK, RunningTime, Watched


class Clock:
    """Stands in for the clocks of a process that can be stopped."""

    def __init__(self) -> None:
        self.now = self.worked = self.waited = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(running, "time", found)
    monkeypatch.setattr(running, "_queued", lambda process: found.waited)
    return found


def test_time_passes_for_who_works_and_for_who_waits(clock: Clock) -> None:
    time_spent = RunningTime()
    clock.now = clock.worked = 10.0  # one long step
    assert time_spent.seconds() == 10.0
    clock.now += 1.5  # asleep, say for a card
    assert time_spent.seconds() == 11.5
    clock.now += 0.1
    assert time_spent.seconds() == pytest.approx(11.6)


def test_no_time_passes_for_who_is_stopped(clock: Clock) -> None:
    time_spent = RunningTime()
    clock.now, clock.worked = 3600.0, 0.5
    assert time_spent.seconds() == LONGEST_LOOK
    clock.now, clock.worked = 7200.0, 5.5  # stopped in the midst of a step of five seconds
    assert time_spent.seconds() == LONGEST_LOOK + 5.0


def test_no_time_passes_for_who_waits_for_a_core(clock: Clock) -> None:
    time_spent = RunningTime()
    clock.now, clock.worked, clock.waited = 40.0, 10.0, 30.0
    assert time_spent.seconds() == 10.0


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as found:
        yield found
        found.kill()


def test_a_stopped_process_does_not_run(process: subprocess.Popen[Any]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    watched = Watched(process.pid)
    while watched.stopped < 0.05:
        time.sleep(0.01)
        watched.look()
    assert watched.running == 0.0
    os.kill(process.pid, signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
    stopped = watched.stopped
    while watched.running < 0.05:
        time.sleep(0.01)
        watched.look()
    assert watched.stopped == stopped


def test_who_was_stopped_itself_counts_a_moment(clock: Clock, process: subprocess.Popen[Any]) -> None:
    watched = Watched(process.pid)
    clock.now = 3600.0
    watched.look()
    assert watched.running == LONGEST_LOOK
