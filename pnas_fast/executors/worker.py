"""A worker process: trains children one after the other for as long as its search lives.

``python -m pnas_fast.executors.worker`` reads a setup and then tasks from standard input and writes
results to standard output. Everything else that is printed goes to standard error.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch

from pnas_fast.data import DataSet
from pnas_fast.evaluation import ChildResult, train_child
from pnas_fast.evaluation.probe import probe_child
from pnas_fast.evaluation.profiling import trace_file, write_trace
from pnas_fast.executors.messages import Setup, Task, decode_setup, encode_result, receive, send
from pnas_fast.executors.shared import read_data
from pnas_fast.runs.weights import child_file, save_child
from pnas_fast.space import Cell


def main() -> None:
    """Serve until standard input ends."""
    # Ctrl-C is for the search, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = _claim_stdout()
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    setup = decode_setup(receive(lines.get()))
    torch.set_num_threads(setup.settings.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True
    try:
        if setup.device != "cpu":
            torch.cuda.set_device(setup.device)
        data = read_data(Path(setup.data)).to(setup.device)
    except (ValueError, RuntimeError, OSError) as error:
        send(replies, {"fatal": str(error).split("\n", 1)[0]})
        return
    send(replies, {"ready": True})
    # What is here now stays: collecting garbage need not look at it again, many times a child.
    gc.collect()
    gc.freeze()
    while True:
        _serve(Task(**receive(lines.get())), setup, data, replies)


def _serve(task: Task, setup: Setup, data: DataSet, replies: TextIO) -> None:
    def report(images: int) -> None:
        send(replies, {"position": task.position, "images": images})

    cell = Cell.parse(task.cell)
    if data.train_images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    if task.profile:
        write_trace(cell, setup.settings, data, task.seed, trace_file(Path(setup.folder), task.position))
    if setup.probe_seconds is None:
        result = _train(task, cell, setup, data, report)
    else:
        result = probe_child(cell, setup.settings, data, task.seed, setup.probe_seconds)
    if data.train_images.is_cuda:
        result.memory = torch.cuda.max_memory_reserved()
    message = {"position": task.position, "result": encode_result(result)}
    send(replies, message | {"unusable": result.status == "failed" and not _usable(setup.device)})


def _train(task: Task, cell: Cell, setup: Setup, data: DataSet, report: Callable[[int], None]) -> ChildResult:
    result, network = train_child(cell, setup.settings, data, task.seed, report)
    if network is not None:
        save_child(network, data, child_file(Path(setup.folder), task.position))
    return result


def _usable(device: str) -> bool:
    """Whether the process can go on: after some errors on a GPU, every further call to it fails."""
    try:
        if device != "cpu":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _claim_stdout() -> TextIO:
    """Standard output for messages alone: what libraries print there goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _read_lines(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    # The search has ended, perhaps by force: a child half trained is of no use to anyone.
    os._exit(0)


if __name__ == "__main__":
    main()
