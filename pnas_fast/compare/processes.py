"""Searches on a table side by side, a process each: a strategy's own work is all that takes time there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

import torch

from pnas_fast.compare.plan import Planned
from pnas_fast.data import source
from pnas_fast.protocols import Event, MachineError
from pnas_fast.search.run import Search
from pnas_fast.search.sources import cut
from pnas_fast.threads import cores

FEWEST = 24
"""Runs that are worth the seconds in which processes import what they need."""


def run_side_by_side(runs: Sequence[Planned], workers: int, ended: Callable[[Planned], None]) -> None:
    """Carry out runs that share nothing.

    A process that outlives this one, which was killed, ends at its search's next event.

    Args:
        runs: none of which is finished.
        workers: processes.
        ended: is told each run when it has ended.

    Raises:
        StrategyError, EvaluatorError, RunError, MachineError: a search cannot go on; all are ended.
    """
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], dict[Connection, list[Planned]]()
    try:
        for index in range(workers):
            share = list(runs[index::workers])
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(share, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes[mine] = share
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                _hear(pipe, pipes, ended)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _hear(pipe: Connection, pipes: dict[Connection, list[Planned]], ended: Callable[[Planned], None]) -> None:
    try:
        failure = pipe.recv()
    except EOFError:
        left = pipes.pop(pipe)
        if left:
            raise MachineError(
                f"{left[0].folder}: the process of this search ended by itself; look whether memory is "
                "exhausted, and run the same command again"
            ) from None
        return
    if failure is not None:
        raise failure
    ended(pipes[pipe].pop(0))


class _Watch:
    """A listener that ends this process where the one that started it is gone."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def on(self, event: Event) -> None:
        if os.getppid() != self._parent:
            os._exit(1)


def _work(runs: Sequence[Planned], pipe: Connection, parent: int) -> None:
    """Carry out runs one after the other; sends None for each, or the error that ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: who started this one says when to end
    torch.set_num_threads(1)
    try:
        for planned in runs:
            config = planned.config
            data = cut(source(config.data), config.train_images)
            Search(config, data, planned.folder, others=(_Watch(parent),), finishing=False).run()
            pipe.send(None)
    except Exception as error:
        pipe.send(error)


def workers_for(runs: Sequence[Planned]) -> int:
    """How many processes so many runs are worth; 1 is this one."""
    return min(runs[0].config.workers or cores(), len(runs)) if len(runs) >= FEWEST else 1
