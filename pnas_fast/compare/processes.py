"""Searches on a table side by side, a process each: a strategy's own work is all that takes time there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from pnas_fast.cli.ending import BATCH_SIGNALS
from pnas_fast.compare.plan import Planned
from pnas_fast.protocols import Event, MachineError
from pnas_fast.search.run import Search
from pnas_fast.search.sources import source_of
from pnas_fast.threads import cores

FEWEST = 24
"""Runs that are worth the seconds in which processes import what they need."""


def run_side_by_side(runs: Sequence[Planned], workers: int, ended: Callable[[Planned], None]) -> None:
    """Carry out runs that share nothing.

    A process that outlives this one, which was killed, ends at its search's next event.

    Args:
        runs: none of which is finished.
        workers: processes, no more than runs.
        ended: is told each run when it has ended.

    Raises:
        StrategyError, EvaluatorError, RunError, MachineError: a search cannot go on; all are ended.
    """
    context = multiprocessing.get_context("spawn")
    waiting, processes = deque(runs), list[BaseProcess]()
    busy = dict[Connection, Planned]()
    try:
        for _ in range(workers):
            mine, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
            with _held_back(BATCH_SIGNALS):
                process.start()
            theirs.close()
            processes.append(process)
            busy[mine] = _give(mine, waiting)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                planned = busy.pop(pipe)
                _hear(pipe, planned)
                ended(planned)
                if waiting:
                    busy[pipe] = _give(pipe, waiting)
    finally:
        for process in processes:
            process.kill()
            process.join()


@contextmanager
def _held_back(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Hold signals back for a while; a process that is started meanwhile never hears of them.

    Batch systems ask every process of a job to end: it is for the program to say when.
    """
    # The first process is started with a helper of multiprocessing's, which lets SIGTERM through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _give(pipe: Connection, waiting: deque[Planned]) -> Planned:
    """The next run, which has been sent."""
    planned = waiting.popleft()
    with suppress(OSError):  # a process that is gone is heard of when it should answer
        pipe.send(planned)
    return planned


def _hear(pipe: Connection, planned: Planned) -> None:
    """Hear that a run has ended, or raise what ended its process."""
    try:
        failure = pipe.recv()
    except (EOFError, OSError):
        raise MachineError(
            f"{planned.folder}: the process of this search ended by itself; look whether memory is "
            "exhausted, and run the same command again"
        ) from None
    if failure is not None:
        raise failure


class _Watch:
    """A listener that ends this process where the one that started it is gone."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def on(self, event: Event) -> None:
        if os.getppid() != self._parent:
            os._exit(1)


def _work(pipe: Connection, parent: int) -> None:
    """Carry out run after run as they are sent; answer None for each, or the error that ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: who started this one says when to end
    torch.set_num_threads(1)
    watch = _Watch(parent)
    try:
        while True:
            planned = pipe.recv()
            Search(
                planned.config, source_of(planned.config), planned.folder, others=(watch,), finishing=False
            ).run()
            pipe.send(None)
    except EOFError:
        return
    except Exception as error:
        pipe.send(error)


def workers_for(runs: Sequence[Planned]) -> int:
    """How many processes so many runs are worth; 1 is this one."""
    return min(runs[0].config.workers or cores(), len(runs)) if len(runs) >= FEWEST else 1
