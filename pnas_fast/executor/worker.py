"""A worker process: trains children one after the other for as long as its search lives.

``python -m pnas_fast.executor.worker`` reads a setup and then tasks from standard input and writes
results to standard output. Everything else that is printed goes to standard error.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

import torch

from pnas_fast.data import DataSet
from pnas_fast.executor.messages import Task, encode_result, receive, send
from pnas_fast.space import Cell
from pnas_fast.training import TrainingSettings, load_training_data, train_child
from pnas_fast.weights import child_file, save_child


def main() -> None:
    """Serve until standard input ends."""
    # Ctrl-C is for the search, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = _claim_stdout()
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    setup = receive(lines.get())
    settings = TrainingSettings(**setup["settings"])
    folder = Path(setup["folder"])
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True
    try:
        data = load_training_data(settings).to(settings.device)
    except (ValueError, RuntimeError) as error:
        send(replies, {"fatal": str(error).split("\n", 1)[0]})
        return
    send(replies, {"ready": True})
    # What is here now stays: collecting garbage need not look at it again, many times a child.
    gc.collect()
    gc.freeze()
    while True:
        _serve(Task(**receive(lines.get())), settings, data, folder, replies)


def _serve(task: Task, settings: TrainingSettings, data: DataSet, folder: Path, replies: TextIO) -> None:
    def report(images: int) -> None:
        send(replies, {"position": task.position, "images": images})

    cell = Cell.parse(task.cell)
    result, network = train_child(cell, settings, data, task.seed, report)
    if network is not None:
        save_child(network, data, child_file(folder, task.position))
    send(replies, {"position": task.position, "result": encode_result(result)})


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
