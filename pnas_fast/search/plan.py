"""What a configuration costs before it is run: children, images, hours."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from pnas_fast.counting import count_distinct, count_new_blocks, share_of_space
from pnas_fast.data import DataSet, TrainingBatches, load
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.evaluator import worker_count
from pnas_fast.space import CELL_INPUTS, Block, Cell
from pnas_fast.threads import torch_threads
from pnas_fast.training import Stepper, build_child

SAMPLED_CELLS = 2
"""Random cells timed at each level."""

SECONDS_A_CELL = 0.7
CIFAR10_STAND_IN = "synthetic:32x32x3/10"
CIFAR10_TRAINING_IMAGES = 45_000


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One level's cost. ``images_per_second`` is that of one worker; ``hours`` are with all workers.

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
    hours: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of a search."""

    levels: list[LevelPlan]
    workers: int

    @property
    def children(self) -> int:
        """Children over all levels, at most."""
        return sum(level.children for level in self.levels)

    @property
    def images(self) -> int:
        """Training images over all children."""
        return sum(level.images for level in self.levels)

    @property
    def hours(self) -> float:
        """Estimated time of training."""
        return sum(level.hours for level in self.levels)


def make_plan(config: SearchConfig) -> Plan:
    """Count a resolved configuration's children and images, and time a few random cells of each level.

    CIFAR-10 need not be there: images of its size take its place.
    """
    cifar10 = config.data.startswith("cifar10:")
    data = load(CIFAR10_STAND_IN if cifar10 else config.data)
    images = CIFAR10_TRAINING_IMAGES if cifar10 else len(data.train_labels)
    images = min(images, config.train_images or images)
    workers = worker_count(config)
    data = data.to(config.device)
    levels = []
    children = 1  # the cell without blocks, of which those of one block are the candidates
    for level in range(1, config.blocks + 1):
        distinct = count_distinct(level, config.operations)
        candidates = min(children * count_new_blocks(level - 1, config.operations), distinct)
        share = share_of_space(candidates, level, config.operations)
        children = candidates if level == 1 else min(config.beam, candidates)
        seen = children * images * config.epochs
        rate = _images_per_second(config, data, level)
        hours = seen / (rate * workers) / 3600
        levels.append(LevelPlan(level, distinct, candidates, share, children, seen, rate, hours))
    return Plan(levels, workers)


def random_cell(blocks: int, operations: tuple[str, ...], generator: random.Random) -> Cell:
    """A cell whose inputs and operations are drawn uniformly."""

    def side(index: int) -> tuple[int, str]:
        return generator.randrange(CELL_INPUTS + index), generator.choice(operations)

    return Cell(tuple(Block(*side(index), *side(index)) for index in range(blocks)))


def _images_per_second(config: SearchConfig, data: DataSet, level: int) -> float:
    """One worker's training rate over a few random cells, each after a step that is not counted."""
    generator = random.Random(f"{config.seed} {level}")
    seconds = images = 0.0
    with torch_threads(config.threads):
        for _ in range(SAMPLED_CELLS):
            cell = random_cell(level, config.operations, generator)
            spent, seen = _time_steps(cell, config, data)
            seconds += spent
            images += seen
    return images / seconds


def _time_steps(cell: Cell, config: SearchConfig, data: DataSet) -> tuple[float, int]:
    stepper = Stepper(build_child(cell, config, data, config.seed), config)
    # Small batches on a CPU, where their size hardly matters: a plan should not take minutes.
    batch = config.batch if config.device == "cuda" else min(config.batch, 32)
    images, labels = TrainingBatches(data, batch, seed=0).batch(0, 0)
    float(stepper.step(images, labels, 0.0))
    steps = 0
    started = time.monotonic()
    while time.monotonic() - started < SECONDS_A_CELL:
        float(stepper.step(images, labels, 0.0))
        steps += 1
    return time.monotonic() - started, steps * len(labels)
