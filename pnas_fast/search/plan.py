"""What a configuration costs before it is run: children, images, hours, GPU memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import fmean

from pnas_fast.counting import count_distinct, count_new_blocks, share_of_space
from pnas_fast.data import DataError, DataSet, load
from pnas_fast.data.augmentation import check_cutout
from pnas_fast.engine import settings_source
from pnas_fast.evaluation import ChildResult
from pnas_fast.report.text import duration
from pnas_fast.search.config import SearchConfig, first_level
from pnas_fast.search.parts import budget_of
from pnas_fast.search.placement import Placement
from pnas_fast.search.preflight import Load, choose_placement, random_cell, successful, try_children
from pnas_fast.search.warming import warm_kernels
from pnas_fast.strategies.exhaustive import level_sizes

SAMPLED_CELLS = 2
"""Random cells tried at each level, at least; more where there are more workers."""


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One level's cost. ``images_per_second`` is that of one child beside the others, ``memory`` the most
    that a worker reserved on a GPU, in bytes; ``hours`` are with all workers.

    At most ``candidates`` are scored, which is ``share`` of all distinct cells of the level's size: fewer
    where children fail, and by a percent or so because two parents may have a candidate in common.
    """

    level: int
    distinct: int
    candidates: int
    share: float
    children: int
    images: int
    images_per_second: float
    memory: int
    hours: float


@dataclass(frozen=True, slots=True)
class FinalsPlan:
    """The cost of the final choice: ``hours`` are with all workers."""

    children: int
    images: int
    hours: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of a search, by children tried where they will be.

    ``finals`` are the final trainings, of children as large as the last level's. ``loads`` are the numbers of
    children that were tried on a GPU to choose ``placement``; ``warning`` is a line about children that would
    exceed the time limit, or empty.
    """

    levels: list[LevelPlan]
    placement: Placement
    loads: list[Load]
    finals: FinalsPlan
    warning: str = ""

    @property
    def children(self) -> int:
        """Children over all levels, at most; final trainings are apart, here and below."""
        return sum(level.children for level in self.levels)

    @property
    def images(self) -> int:
        """Training images over all children."""
        return sum(level.images for level in self.levels)

    @property
    def hours(self) -> float:
        """Estimated time of training, building and evaluating."""
        return sum(level.hours for level in self.levels)


@dataclass(frozen=True, slots=True)
class _Size:
    """Training images that a child sees, and validation images that judge it beside those of the trial."""

    images: int
    validation: float

    def seconds(self, result: ChildResult) -> float:
        """What a whole child takes, by one that was tried: building, training, evaluating."""
        trained = result.images_seen / result.images_per_second
        building = result.seconds - trained - result.evaluation_seconds
        return building + self.images / result.images_per_second + self.validation * result.evaluation_seconds


def make_plan(config: SearchConfig, note: Callable[[str], None] = lambda line: None) -> Plan:
    """Count a resolved configuration's children and images, and try a few random cells of each level.

    The data need not be there where their source knows their size: made-up images take their place. ``note``
    is given lines for people.

    Raises:
        PreflightError: no child could be tried.
    """
    data, size = _data(config)
    check_cutout(data, config.cutout)
    warm_kernels(config, data.image_shape, note)
    placement, loads = choose_placement(config, data)
    tried = _try_levels(config, data, placement)
    levels, longest = [], 0.0
    for (level, distinct, candidates, children), results in zip(planned_sizes(config), tried, strict=True):
        share = share_of_space(candidates, level, config.operations)
        rate = fmean(result.images_per_second for result in results)
        memory = max(result.memory for result in results)
        seconds = [size.seconds(result) for result in results]
        longest = max(longest, *seconds)
        hours = children * fmean(seconds) / placement.children / 3600
        images = children * size.images
        levels.append(LevelPlan(level, distinct, candidates, share, children, images, rate, memory, hours))
    finals = _plan_finals(config, size, tried[-1], placement.children)
    return Plan(levels, placement, loads, finals, over_limit(longest, config.time_limit))


def _plan_finals(
    config: SearchConfig, size: _Size, results: Sequence[ChildResult], at_a_time: int
) -> FinalsPlan:
    children = config.finalists * config.final_replicas
    final = replace(size, images=size.images // config.epochs * (config.final_epochs or config.epochs))
    seconds = fmean(final.seconds(result) for result in results)
    return FinalsPlan(children, children * final.images, children * seconds / at_a_time / 3600)


def planned_sizes(config: SearchConfig) -> list[tuple[int, int, int, int]]:
    """Of each level its number of blocks, its distinct cells, the most that are scored and are trained."""
    sizes = []
    every = level_sizes(config.blocks, config.operations, config.cells)
    parents = 1  # the cell without blocks, of which those of one block are the candidates
    for level in planned_levels(config):
        distinct = count_distinct(level, config.operations)
        if config.strategy == "progressive":
            candidates = min(parents * count_new_blocks(level - 1, config.operations), distinct)
            children = first_level(config) if level == 1 else min(config.beam, candidates)
            parents = candidates if level == 1 else children
        elif config.strategy == "exhaustive":
            candidates = distinct
            children = config.replicas * every[level - 1]
        else:
            candidates = children = budget_of(config)
        sizes.append((level, distinct, candidates, children))
    return sizes


def planned_levels(config: SearchConfig) -> list[int]:
    """The numbers of blocks of the children that a search trains."""
    if config.strategy == "exhaustive":
        return list(range(1, len(level_sizes(config.blocks, config.operations, config.cells)) + 1))
    return list(range(1, config.blocks + 1)) if config.strategy == "progressive" else [config.blocks]


def over_limit(seconds: float, limit: float) -> str:
    """A line for people where a child that was tried would take longer than the limit; else empty."""
    if seconds <= limit:
        return ""
    return (
        f"warning: a child that was tried would take about {duration(seconds)}, and --time-limit {limit:g} "
        f"gives children up after {duration(limit)}: --time-limit {2 * seconds:.0f} lets them end"
    )


def _data(config: SearchConfig) -> tuple[DataSet, _Size]:
    known = settings_source(config)
    described = known.describe()
    images = min(described.train_images, config.train_images or described.train_images)
    try:
        data = load(described.stand_in)
    except DataError:  # more classes or larger images than made-up ones may have
        data = known.open()
    return data, _Size(config.epochs * images, described.validation_images / len(data.validation_labels))


def _try_levels(config: SearchConfig, data: DataSet, placement: Placement) -> list[list[ChildResult]]:
    """Results of random cells of each level, tried while all workers are at work as far as may be."""
    generator = random.Random(config.seed)
    levels = planned_levels(config)
    each = max(SAMPLED_CELLS, ceil(placement.children / len(levels)))
    cells = [random_cell(level, config.operations, generator) for level in levels for _ in range(each)]
    results = try_children(config, data, placement, cells)
    return [successful(results[each * index : each * (index + 1)]) for index in range(len(levels))]
