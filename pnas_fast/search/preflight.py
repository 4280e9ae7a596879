"""Trying a few children before the search: how fast they are, and how many a GPU should train at once."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from pnas_fast.data import DataSet, as_source
from pnas_fast.evaluation import ChildResult
from pnas_fast.evaluation.probe import as_result, probe_spec
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.protocols import Finished, MachineError, Proposal, Task
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.placement import CPU, gpus, places
from pnas_fast.space import CELL_INPUTS, Block, Cell
from pnas_fast.threads import cores

PROBE_SECONDS = 0.7
"""Of training a child, on a CPU; a GPU's are longer, because its children take turns in it."""

GPU_PROBE_SECONDS = 2.0
MEMORY_SHARE = 0.9
"""Of a GPU's memory, the most that children may be expected to take."""

WORTH = 1.05
"""Twice as many children must train so many times the images a second."""


@dataclass(frozen=True, slots=True)
class Load:
    """So many children side by side on one GPU: images a second of all together, and the card's memory.

    ``used`` bytes of the card's ``total`` were in use at most, other programs' included.
    """

    children: int
    images_per_second: float
    used: int
    total: int


class PreflightError(ValueError):
    """No child could be tried; the message says why."""


def try_children(
    config: SearchConfig,
    data: DataSet,
    devices: Sequence[str],
    cells: Sequence[Cell],
    look: Callable[[], None] = lambda: None,
) -> list[ChildResult]:
    """Train each cell's child for a moment, side by side on devices; results in the order of the cells.

    Args:
        config: resolved.
        data: the data set, in the CPU's memory.
        devices: one for each worker.
        cells: not necessarily distinct.
        look: called whenever anything has happened.
    """
    seconds = PROBE_SECONDS if config.device == "cpu" else GPU_PROBE_SECONDS
    results: dict[int, ChildResult] = {}
    with (
        tempfile.TemporaryDirectory(prefix="pnas_fast-") as scratch,
        # What is tried is tried among others: alone it would say nothing.
        LocalExecutor(devices, Path(scratch), config.time_limit, config.threads, attempts=1) as executor,
    ):
        try:
            executor.start(probe_spec(config, seconds), as_source(data))
            for index, cell in enumerate(cells):
                executor.submit(Task(index, Proposal(cell, config.epochs), config.seed))
            while len(results) < len(cells):
                for event in executor.events():
                    look()
                    if isinstance(event, Finished):
                        results[event.task.number] = as_result(event.measurement)
        except MachineError as error:
            raise PreflightError(f"no child could be tried: {error}") from error
    return [results[index] for index in range(len(cells))]


def choose_load(measure: Callable[[int], Load | None], most: int) -> tuple[Load, list[Load]]:
    """How many children a GPU should train at once, by trying 1, 2, 4, … while that pays and memory lasts.

    Args:
        measure: the load of so many children; None where they do not fit.
        most: children to try at most.

    Returns:
        The smallest load within `WORTH` of the fastest, and all that were measured.

    Raises:
        PreflightError: not even one child fits.
    """
    first = measure(1)
    if first is None:
        raise PreflightError("not even one child fits the GPU: choose fewer --filters or a smaller --batch")
    loads = [first]
    while loads[-1].children < most:
        count = min(2 * loads[-1].children, most, _fitting(loads))
        load = measure(count) if count > loads[-1].children else None
        if load is None:
            break
        loads.append(load)
        if load.images_per_second < WORTH * loads[-2].images_per_second:
            break
    fastest = max(load.images_per_second for load in loads)
    return next(load for load in loads if WORTH * load.images_per_second >= fastest), loads


def _fitting(loads: Sequence[Load]) -> int:
    """Children that should fit: by the growth from the first load to the last, or from nothing to one."""
    first, last = loads[0], loads[-1]
    added = last.children - first.children
    each = max((last.used - first.used) / added if added else first.used, 1.0)
    return last.children + int((MEMORY_SHARE * last.total - last.used) / each)


def choose_for_gpu(config: SearchConfig, data: DataSet) -> tuple[Load, list[Load]]:
    """`choose_load` on the first GPU, which stands for the others, with cells of the most blocks.

    Raises:
        PreflightError: not even one child fits.
    """
    device = gpus()[0]
    generator = random.Random(config.seed)
    cells = [random_cell(config.blocks, config.operations, generator) for _ in range(4)]

    def measure(count: int) -> Load | None:
        most_used = 0

        def look() -> None:
            nonlocal most_used
            free, total = torch.cuda.mem_get_info(device)
            most_used = max(most_used, total - free)

        # Each trains two, so that most of the time all are at work.
        tried = [cells[index % len(cells)] for index in range(2 * count)]
        try:
            results = try_children(config, data, [device] * count, tried, look)
        except PreflightError:
            if count == 1:
                raise
            return None  # workers that do not start for want of memory
        if any(result.out_of_memory for result in results):
            return None
        rate = count * fmean(result.images_per_second for result in successful(results))
        return Load(count, rate, most_used, torch.cuda.mem_get_info(device)[1])

    return choose_load(measure, max(cores() // len(gpus()), 1))


def choose_devices(
    config: SearchConfig, data: DataSet, trying: Callable[[], None] = lambda: None
) -> tuple[list[str], list[Load]]:
    """A device for each worker, and the loads that were tried for it, if that was left open.

    Args:
        config: resolved.
        data: the data set, in the CPU's memory.
        trying: called before children are tried.

    Raises:
        PreflightError: not even one child fits the GPU.
    """
    children_per_gpu, loads = config.children_per_gpu, list[Load]()
    if config.device != CPU and not children_per_gpu:
        trying()
        chosen, loads = choose_for_gpu(config, data)
        children_per_gpu = chosen.children
    return places(config, children_per_gpu), loads


def successful(results: Sequence[ChildResult]) -> list[ChildResult]:
    """Those that did not fail.

    Raises:
        PreflightError: all failed.
    """
    done = [result for result in results if result.status == "done"]
    if not done:
        raise PreflightError(f"no child could be tried: {results[0].error}")
    return done


def random_cell(blocks: int, operations: tuple[str, ...], generator: random.Random) -> Cell:
    """A cell whose inputs and operations are drawn uniformly."""

    def side(index: int) -> tuple[int, str]:
        return generator.randrange(CELL_INPUTS + index), generator.choice(operations)

    return Cell(tuple(Block(*side(index), *side(index)) for index in range(blocks)))
