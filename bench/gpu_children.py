"""Whole children on a card, trained as a search trains them: for `bench/lease.py`.

One child by the search's own trainer, with its CUDA graph, in a process of its own; several side by side in
one worker process of the search's own; and whether children of two backends are as good after equal epochs.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pnas_fast.data import DataSet, as_source, load
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import ChildResult, train_child
from pnas_fast.evaluation.train import train_spec
from pnas_fast.executors.local import LOG, LocalExecutor
from pnas_fast.executors.process import Program
from pnas_fast.protocols import Finished, Progressed, Proposal, Started, Task
from pnas_fast.space import Cell

GOAL = 75_000
"""Images a second of all children on an H100."""

IMAGES, EPOCHS = 4480, 6
"""Of a child's training, each time: 35 steps an epoch, of which the first epoch does not count."""

JUDGED_EPOCHS, JUDGED_BATCH = 5, 64
"""Of the trainings whose accuracies are compared."""

TRIES = 2
"""At children that did not overlap, as those of processes that only start."""

CEILING, ALONE, TOGETHER = "roofline of a step", "child of", "children side by side"
"""Parts of the report; `ALONE` is one for each of the backends."""

BACKENDS = ("triton", "eager")

GIB = 2**30

Report = dict[str, Any]
Times = Sequence[tuple[float, int]]
"""Of a child: seconds, and the images that it had seen by then, after every epoch."""


def settings_for(backend: str, repeats: int, filters: int, size: int, batch: int) -> TrainingSettings:
    """Of children whose speed is measured: as in the paper's search, on images of CIFAR-10's kind."""
    return TrainingSettings(
        data=f"synthetic:{size}x{size}x3/10", train_images=IMAGES, repeats=repeats, filters=filters,
        epochs=EPOCHS, batch=batch, learning_rate=0.01, backend=backend, time_limit=240.0,
    )  # fmt: skip


def one_child(text: str, settings: TrainingSettings, device: str) -> Report:
    """A child alone in this process: seconds to the end of its first step, images a second after an epoch.

    The child that makes the one step is another, so that the first step has all to itself that a process
    does once: kernels are loaded, and compiled where Triton's cache lacks them. Evaluating is not in it.
    """
    # As workers have it.
    torch.backends.cudnn.deterministic = True
    cell, data = Cell.parse(text), load(settings.data, device=device).subset(settings.train_images)
    step = data.subset(min(settings.batch, len(data.train_labels)))
    first = _trained(cell, replace(settings, epochs=1), step)
    times: list[tuple[float, int]] = []
    result = _trained(cell, settings, data, times)
    return {
        "first step, s": first.seconds - first.evaluation_seconds,
        "images/s": overlapping_rate([times]),
        "reserved, GiB": torch.cuda.max_memory_reserved() / GIB if data.train_images.is_cuda else 0.0,
        "equal epochs": equal_epochs(cell, settings, device),
        "losses": result.epoch_losses,
    }


def equal_epochs(cell: Cell, settings: TrainingSettings, device: str) -> Report:
    """How good a child is after so many epochs of the digits."""
    data = load("digits", device=device)
    # The quick preset's batch and rate.
    recipe = replace(settings, epochs=JUDGED_EPOCHS, batch=JUDGED_BATCH, learning_rate=0.1)
    result = _trained(cell, recipe, data)
    return {
        "data": data.name, "epochs": JUDGED_EPOCHS, "accuracy": result.accuracy,
        "images": len(data.validation_labels), "losses": result.epoch_losses,
    }  # fmt: skip


def _trained(
    cell: Cell, settings: TrainingSettings, data: DataSet, times: list[tuple[float, int]] | None = None
) -> ChildResult:
    def report(images: int) -> None:
        if times is not None:
            times.append((time.monotonic(), images))

    result, _ = train_child(cell, settings, data, 0, report)
    return _good(result)


def _good(result: ChildResult) -> ChildResult:
    if result.status != "done":
        raise RuntimeError(f"a child failed: {result.error}")
    return result


def side_by_side(
    text: str, settings: TrainingSettings, counts: Sequence[int], device: str, command: Sequence[str]
) -> Report:
    """So many children at a time in a process that stays, as a search's do.

    Args:
        text: their cell.
        settings: of each.
        counts: of children.
        device: of all.
        command: starts a worker.

    Returns:
        By the number of children: images a second of all together, and what PyTorch reserved for them;
        besides, how long it took to start, and what all of them took of the card.
    """
    gc.collect()
    source = as_source(load(settings.data).subset(settings.train_images))
    most, before = max(counts), used_memory()
    with (
        tempfile.TemporaryDirectory(prefix="pnas_fast-") as name,
        LocalExecutor(
            [device], Path(name), settings.time_limit, lanes=most,
            start=lambda stderr, device: Program(command, stderr),
        ) as executor,
    ):  # fmt: skip
        executor.start(train_spec(settings, source.identity()), source)
        begin = time.monotonic()
        try:
            times, _ = _run(executor, text, most, settings.epochs)
            found: Report = {"children": most, "start, s": max(own[0][0] for own in times) - begin}
            for count in sorted(counts, reverse=True):
                found[str(count)] = _together(executor, text, count, settings.epochs)
                # Of all of them at work; with fewer the process keeps what the others had.
                found.setdefault("memory of the card, GiB", (used_memory() - before) / GIB)
        except RuntimeError as error:
            log = Path(name) / LOG
            words = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""
            raise RuntimeError(f"{error}\n{words}") from error
    return found


def _together(executor: LocalExecutor, text: str, count: int, epochs: int) -> Report:
    rate, reserved = None, 0
    for _ in range(TRIES):
        times, reserved = _run(executor, text, count, epochs)
        rate = overlapping_rate(times)
        if rate is not None:
            break
    return {"images/s": rate, "reserved, GiB": reserved / GIB}


def _run(executor: LocalExecutor, text: str, count: int, epochs: int) -> tuple[list[Times], int]:
    """Train so many children; the times of each, and the bytes that their process reserved."""
    times: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    started = finished = reserved = 0
    for number in range(count):
        executor.submit(Task(number, Proposal(Cell.parse(text), epochs), number))
    while finished < count:
        for event in executor.events():
            if isinstance(event, Started):
                started += 1
            elif isinstance(event, Progressed):
                times[event.task.number].append((time.monotonic(), event.images))
            elif isinstance(event, Finished):
                finished += 1
                if not event.measurement.done:
                    raise RuntimeError(f"a child failed: {event.measurement.error}")
                reserved = max(reserved, int(event.measurement.values.get("memory", 0)))
    if started > count:
        raise RuntimeError(f"{started - count} of {count} children had to begin again")
    return list(times), reserved


def overlapping_rate(children: Sequence[Times]) -> float | None:
    """Images a second of all together, from when each has an epoch behind it until one of them is done.

    None where there is no such time. Within an epoch a child is taken to go on evenly.
    """
    begin, end = max(times[0][0] for times in children), min(times[-1][0] for times in children)
    if begin >= end:
        return None
    seen = [
        np.interp([begin, end], [at for at, _ in times], [images for _, images in times])
        for times in children
    ]
    return float(sum(after - before for before, after in seen) / (end - begin))


def used_memory() -> int:
    """Bytes of the card in use, whoever uses them; this process keeps none that it does not need."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


def lines(report: Report) -> list[str]:
    """What the report says of children: rates beside the roofline and the goal, first steps, accuracies."""
    ceiling = (report.get(CEILING) or {}).get("images/s")
    found = []

    def add(name: str, row: Report, rest: str = "") -> None:
        rate = row["images/s"]
        words = [f"{name:32} {rate:10,.0f} images/s" if rate else f"{name:32} at no time all at once"]
        if rate:
            words += [f"{rate / ceiling:.1%} of roofline"] if ceiling else []
            words += [f"{rate / GOAL:.1%} of {GOAL:,}"]
        found.append(", ".join((*words, f"{row['reserved, GiB']:.2f} GiB reserved")) + rest)

    for backend in BACKENDS:
        row = report.get(f"{ALONE} {backend}")
        if row:
            add(f"{backend}: a child alone", row, f", first step {row['first step, s']:.1f} s")
            equal = row["equal epochs"]
            after = f"after {equal['epochs']} epochs of {equal['data']}"
            found.append(f"{'':32} accuracy {equal['accuracy']:.4f} {after}, of {equal['images']} images")
    together = report.get(TOGETHER) or {}
    for count in sorted(int(key) for key in together if key.isdigit()):
        add(f"triton: {count} side by side", together[str(count)])
    if together:
        start, memory = together["start, s"], together["memory of the card, GiB"]
        children = f"{together['children']} children in a process"
        found.append(
            f"{children}: {start:.0f} s until all had an epoch behind them, {memory:.1f} GiB of the card"
        )
    return found
