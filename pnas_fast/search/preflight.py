"""Trying a few children before the search: how fast they are, and how many a GPU should train at once."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from pnas_fast.data import DataSet, as_source
from pnas_fast.evaluation import ChildResult
from pnas_fast.evaluation.probe import as_result, probe_spec
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.protocols import Finished, MachineError, Proposal, Task
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.placement import CPU, Placement, gpus, on_cpu, on_gpus
from pnas_fast.space import CELL_INPUTS, Block, Cell
from pnas_fast.threads import cores

PROBE_SECONDS = 0.7
"""Of training a child, on a CPU."""

GPU_PROBE_SECONDS = 2.0
"""For each child side by side: what a process does once for each, others wait for."""

MOST_CHILDREN = 8
"""Side by side in one process that are tried."""

MEMORY_SHARE = 0.9
"""Of a GPU's memory, the most that children may be expected to take."""

WORTH = 1.05
"""Twice as many children must train so many times the images a second."""


@dataclass(frozen=True, slots=True)
class Load:
    """So many children side by side on one GPU: images a second of all together, and the card's memory.

    Their kernels are planned for one of ``share`` parts of it; ``used`` bytes of the card's ``total`` were in
    use at most, other programs' included.
    """

    children: int
    images_per_second: float
    used: int
    total: int
    share: int = 1


class PreflightError(ValueError):
    """No child could be tried; the message says why."""


def try_children(
    config: SearchConfig,
    data: DataSet,
    placement: Placement,
    cells: Sequence[Cell],
    look: Callable[[], None] = lambda: None,
) -> list[ChildResult]:
    """Train each cell's child for a moment, side by side; results in the order of the cells.

    Args:
        config: resolved.
        data: the data set, in the CPU's memory.
        placement: of the children.
        cells: not necessarily distinct.
        look: called whenever anything has happened.
    """
    seconds = PROBE_SECONDS if config.device == CPU else GPU_PROBE_SECONDS * placement.lanes
    config = replace(config, share=placement.share)
    results: dict[int, ChildResult] = {}
    with (
        tempfile.TemporaryDirectory(prefix="pnas_fast-") as scratch,
        # What is tried is tried among others: alone it would say nothing.
        LocalExecutor(
            placement.devices,
            Path(scratch),
            config.time_limit,
            config.threads,
            lanes=placement.lanes,
            attempts=1,
        ) as executor,
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


def choose_load(
    measure: Callable[[int, int], Load | None],
    counts: Sequence[int],
    shares: Callable[[int], Sequence[int]] = lambda children: (1,),
) -> tuple[Load, list[Load]]:
    """How many children a GPU should train at once, by trying more and more while that pays and memory lasts.

    Args:
        measure: the load of so many children with kernels for one of so many parts; None if they do not fit.
        counts: numbers of children that may be tried, rising.
        shares: by the number of children, the numbers of parts to try.

    Returns:
        Of the smallest number within `WORTH` of the fastest load its fastest one, and all that were measured.

    Raises:
        PreflightError: not even the first number of children fits.
    """
    loads, best = list[Load](), list[Load]()
    for wanted in counts:
        count = min(wanted, _fitting(loads)) if loads else wanted
        if loads and count <= loads[-1].children:
            break
        fitting = [load for share in shares(count) if (load := measure(count, share)) is not None]
        if not fitting:
            break
        loads += fitting
        best.append(max(fitting, key=lambda load: load.images_per_second))
        if len(best) > 1 and best[-1].images_per_second < WORTH * best[-2].images_per_second:
            break
    if not best:
        few = "not even one child fits" if counts[0] == 1 else f"{counts[0]} children at once do not fit"
        raise PreflightError(f"{few} the GPU: choose fewer --filters or a smaller --batch")
    fastest = max(load.images_per_second for load in best)
    return next(load for load in best if WORTH * load.images_per_second >= fastest), loads


def _fitting(loads: Sequence[Load]) -> int:
    """Children that should fit: by the growth from the first load to the last, or from nothing to one."""
    first, last = loads[0], loads[-1]
    added = last.children - first.children
    each = max((last.used - first.used) / added if added else first.used, 1.0)
    return last.children + int((MEMORY_SHARE * last.total - last.used) / each)


def choose_for_gpu(
    config: SearchConfig, data: DataSet, counts: Sequence[int], shares: Callable[[int], Sequence[int]]
) -> tuple[Load, list[Load]]:
    """`choose_load` on the first GPU, which stands for the others, with cells of the most blocks.

    Raises:
        PreflightError: not even the first number of children fits.
    """
    device = gpus()[0]
    generator = random.Random(config.seed)
    cells = [random_cell(config.blocks, config.operations, generator) for _ in range(4)]

    def measure(count: int, share: int) -> Load | None:
        placement, most_used = on_gpus(config, [device], count, share), 0

        def look() -> None:
            nonlocal most_used
            free, total = torch.cuda.mem_get_info(device)
            most_used = max(most_used, total - free)

        # In processes of their own they do not begin at once: each trains two, so that most of the time all
        # are at work.
        rounds = 2 if placement.lanes == 1 else 1
        tried = [cells[index % len(cells)] for index in range(rounds * count)]
        try:
            results = try_children(config, data, placement, tried, look)
        except PreflightError:
            if count == counts[0]:
                raise
            return None  # workers that do not start for want of memory
        if any(result.out_of_memory for result in results):
            return None
        rate = count * fmean(result.images_per_second for result in successful(results))
        return Load(count, rate, most_used, torch.cuda.mem_get_info(device)[1], share)

    return choose_load(measure, counts, shares)


def choose_placement(
    config: SearchConfig, data: DataSet, trying: Callable[[], None] = lambda: None
) -> tuple[Placement, list[Load]]:
    """Where children train, and the loads that were tried for it, if anything was left open.

    Args:
        config: resolved.
        data: the data set, in the CPU's memory.
        trying: called before children are tried.

    Raises:
        PreflightError: not even one child fits the GPU.
    """
    if config.device == CPU:
        return on_cpu(config), []
    counts, shares = open_counts(config), open_shares(config)
    children, share = counts[0], shares(counts[0])[0]
    loads = list[Load]()
    if len(counts) > 1 or len(shares(children)) > 1:
        trying()
        chosen, loads = choose_for_gpu(config, data, counts, shares)
        children, share = chosen.children, chosen.share
    return on_gpus(config, gpus(), children, share), loads


def open_counts(config: SearchConfig) -> list[int]:
    """The numbers of children on a GPU that come into question: 1, 2, 4, …, or what was asked for."""
    if config.children_per_gpu:
        return [config.children_per_gpu]
    in_processes = max(cores() // max(len(gpus()), 1), 1)
    most = MOST_CHILDREN if config.evaluator == "train" else in_processes
    doubled = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return sorted({*doubled, most})


def open_shares(config: SearchConfig) -> Callable[[int], Sequence[int]]:
    """Into how many parts of a GPU for each number of children: one, or as many as children, or as asked."""

    def shares(children: int) -> Sequence[int]:
        if config.share:
            return (config.share,)
        divided = config.evaluator == "train" and config.backend == "triton"
        return sorted({1, children if divided else 1})

    return shares


def describe_choice(chosen: Placement, loads: Sequence[Load]) -> str:
    """A line for people: what was chosen, and what was measured of all that was tried."""
    tried = "; ".join(
        f"{load.children}{f' (1/{load.share})' if load.share > 1 else ''}: {load.images_per_second:,.0f}"
        for load in loads
    )
    return (
        f"children at a time on a GPU, of those tried, by images a second ({tried}): the fewest within "
        f"{WORTH - 1:.0%} of the most, {chosen}"
    )


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
