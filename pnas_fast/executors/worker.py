"""A worker process: evaluates cells, some side by side, for as long as its executor lives.

It reads a setup and then tasks from standard input and writes what comes of them to standard output.
Everything else that is printed goes to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

import pnas_fast.evaluation.train  # noqa: F401 (most searches' evaluator: imported before anything is forked)
from pnas_fast.engine.graph import capturing_works
from pnas_fast.engine.streams import to_end
from pnas_fast.evaluation.guard import make_evaluator, measuring
from pnas_fast.evaluation.reasons import is_out_of_memory
from pnas_fast.executors import faults, launch
from pnas_fast.executors.lanes import Answering, Lanes
from pnas_fast.executors.messages import (
    Setup,
    decode_setup,
    decode_task,
    encode_measurement,
    receive,
    send,
)
from pnas_fast.executors.settings import settle
from pnas_fast.executors.shared import read_data
from pnas_fast.protocols import Context, Evaluator, EvaluatorError, MachineError, Task
from pnas_fast.threads import granted

STOPS = (EvaluatorError, MachineError, OSError)
"""What ends the run that a worker is part of."""


def main() -> None:
    """Serve until standard input ends, or the run cannot go on."""
    # Ctrl-C is for the program, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Importing torch may have tied it to one core.
    launch.use_cores(sorted(granted()))
    replies = _claim_stdout()
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(_claim_stdin(), lines), daemon=True).start()
    setup = decode_setup(receive(lines.get()))
    # Where the program has ended nobody is to be told.
    with contextlib.suppress(BrokenPipeError):
        try:
            _serve(setup, lines, replies)
        except STOPS as error:
            send(replies, stopped(error))


def _serve(setup: Setup, lines: queue.Queue[str], replies: TextIO) -> None:
    evaluator, data = prepare(setup)

    def begun(task: Task) -> Answering:
        def report(images: int) -> None:
            send(replies, {"number": task.number, "images": int(images)})

        return answering(evaluator, task, setup, data, report)

    lanes = Lanes(evaluator, setup.device, setup.lanes, begun)
    send(replies, {"ready": True, "lanes": len(lanes)})
    while True:
        with contextlib.suppress(queue.Empty):
            while True:
                lanes.begin(decode_task(receive(lines.get(block=not lanes.busy))))
        for message in lanes.advance():
            send(replies, message)


def prepare(setup: Setup) -> tuple[Evaluator, Any]:
    """Settle this process for a setup: its evaluator, and the data on its device.

    Raises:
        MachineError, OSError: the device or the data cannot be used.
        EvaluatorError: the evaluator cannot be made.
    """
    settle(setup.threads)
    try:
        if setup.device != "cpu":
            torch.cuda.set_device(setup.device)
        data = read_data(Path(setup.data)).to(setup.device)
    except (ValueError, RuntimeError) as error:
        raise MachineError(f"{setup.device} cannot be used: {str(error).splitlines()[0]}") from error
    evaluator = make_evaluator(setup.evaluator)
    # What is here now stays: collecting garbage need not look at it again, many times a child.
    gc.collect()
    gc.freeze()
    return evaluator, data


def answer(
    evaluator: Evaluator, task: Task, setup: Setup, data: Any, report: Callable[[int], None]
) -> dict[str, Any]:
    """The message with a task's result.

    Raises:
        OSError, EvaluatorError: as `pnas_fast.evaluation.guard.measure`.
    """
    return to_end(answering(evaluator, task, setup, data, report))


def answering(
    evaluator: Evaluator, task: Task, setup: Setup, data: Any, report: Callable[[int], None]
) -> Answering:
    """`answer` that stops where the evaluator does."""
    context = Context(task.number, task.seed, data, setup.device, Path(setup.folder), report, task.traced)
    measurement = yield from measuring(evaluator, task.proposal, context)
    memory = not measurement.done and is_out_of_memory(measurement.error or "")
    unusable = not measurement.done and not _usable(setup.device)
    if memory and not unusable:
        _give_back(setup.device)
    return {
        "number": task.number,
        "result": encode_measurement(measurement),
        "memory": memory,
        "unusable": unusable,
    }


def stopped(error: Exception) -> dict[str, str]:
    """The message that the run cannot go on, for one of `STOPS`."""
    if isinstance(error, EvaluatorError):
        return {"evaluator": _one_line(error)}
    return {"machine": faults.of_os(error) if isinstance(error, OSError) else str(error)}


def _usable(device: str) -> bool:
    """Whether the process can go on: after some errors on a GPU, every further call to it fails."""
    if device == "cpu":
        return True
    try:
        torch.cuda.current_stream().synchronize()
    except RuntimeError:
        return False
    return capturing_works()


def _give_back(device: str) -> None:
    """Leave memory to others that is only kept for the next child."""
    if device != "cpu":
        gc.collect()
        torch.cuda.empty_cache()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _claim_stdout() -> TextIO:
    """Standard output for messages alone: what libraries print there goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _claim_stdin() -> TextIO:
    """Standard input for messages alone.

    A process that is forked off to decode images closes ``sys.stdin`` first, and would wait for ever for a
    thread of this one that is reading it.
    """
    tasks = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return tasks


def _read_lines(tasks: TextIO, lines: queue.Queue[str]) -> None:
    for line in tasks:
        lines.put(line)
    # The program has ended, perhaps by force: a child half trained is of no use to anyone.
    os._exit(0)


if __name__ == "__main__":
    main()
