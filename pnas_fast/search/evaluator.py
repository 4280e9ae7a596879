"""From cells to trials: what the store remembers is not trained again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pnas_fast.cli.options import ConfigError
from pnas_fast.executors.messages import Task
from pnas_fast.executors.pool import Drained, Event, Finished, Progress, Started, WorkerPool
from pnas_fast.runs.store import Trial, TrialStore
from pnas_fast.runs.weights import discard, discard_all, promote
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.display import Display
from pnas_fast.search.result import best_trial
from pnas_fast.space import Cell, CellError

EFFORT = {
    "sep3x3": 2, "sep5x5": 3, "sep7x7": 4, "conv1x7_7x1": 5,
    "identity": 0, "avg_pool3x3": 0, "max_pool3x3": 1, "dil_conv3x3": 1,
}  # fmt: skip
"""Roughly how long children with an operation take longer than children without, beside each other."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """The child to trace: the one at a place in the search, or that of a cell.

    Raises:
        ConfigError: ``text`` is neither a place nor a cell.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            if not self.text.isdecimal():
                Cell.parse(self.text)
        except CellError as error:
            raise ConfigError(f"--profile {self.text}: neither a position nor a cell ({error})") from error

    def is_it(self, position: int, cell: str) -> bool:
        """Whether a child is the one."""
        if self.text.isdecimal():
            return position == int(self.text)
        return Cell.parse(cell).canonical() == Cell.parse(self.text).canonical()


class Evaluator:
    """Trains children and remembers them in the store.

    The trials it returns depend on configuration, cells and positions alone: not on the number of
    workers, nor on how often the search was stopped on the way. ``traced`` is the place of the child that
    was also ``profiled``; None while none was.
    """

    def __init__(
        self,
        config: SearchConfig,
        folder: Path,
        store: TrialStore,
        pool: WorkerPool,
        display: Display,
        profiled: Profiled | None = None,
    ) -> None:
        self._config = config
        self._profiled = profiled
        self.traced: int | None = None
        self._folder = folder
        self._store = store
        self._pool = pool
        self._display = display
        known = store.trials()
        self._trials = {trial.cell: trial for trial in known}
        self._best = best_trial(known)
        self._waited: float | None = None
        if self._best is not None:
            promote(folder, self._best.position)
        discard_all(folder)

    @property
    def waited(self) -> float | None:
        """How long workers waited for the last of the children just trained; None where none was."""
        return self._waited

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return self._best

    def evaluate(self, level: int, cells: Sequence[Cell], first_position: int) -> list[Trial]:
        """Trials of the cells, in their order, from the store or by training.

        What takes longest is trained first, so that at the end workers wait least for each other.

        Args:
            level: their number of blocks.
            cells: distinct cells.
            first_position: the place of the first of them in the whole search.
        """
        tasks = list[Task]()
        for position, cell in enumerate(map(str, cells), first_position):
            if cell in self._trials:
                self._display.child_finished(self._trials[cell], self._best_accuracy(), replayed=True)
            else:
                profile = self._profiled is not None and self._profiled.is_it(position, cell)
                self.traced = position if profile else self.traced
                tasks.append(Task(position, cell, child_seed(self._config.seed, cell), profile))
        tasks.sort(key=lambda task: -effort(Cell.parse(task.cell)))
        seen: dict[int, int] = {}
        self._waited = None
        for event in self._pool.run(tasks) if tasks else ():
            self._handle(event, level, seen)
        return [self._trials[str(cell)] for cell in cells]

    def _handle(self, event: Event, level: int, seen: dict[int, int]) -> None:
        match event:
            case Started():
                self._display.child_started()
            case Progress(task, images):
                self._display.child_progress(images - seen.get(task.position, 0))
                seen[task.position] = images
            case Drained(waited):
                self._waited = waited
            case Finished(task, result, device, waited):
                trial = Trial(
                    position=task.position,
                    cell=task.cell,
                    level=level,
                    status=result.status,
                    accuracy=result.accuracy,
                    loss=result.loss,
                    epoch_losses=tuple(result.epoch_losses),
                    seconds=result.seconds,
                    images_per_second=result.images_per_second,
                    images_seen=result.images_seen,
                    parameters=result.parameters,
                    multiply_adds=result.multiply_adds,
                    error=result.error,
                    evaluation_seconds=result.evaluation_seconds,
                    waiting_seconds=waited,
                    memory=result.memory or None,
                    device=device,
                )
                self._remember(trial)
                self._display.child_finished(trial, self._best_accuracy(), replayed=False)

    def _remember(self, trial: Trial) -> None:
        """Commit a trial, then keep its weights if it is the best: a crash between the two loses none."""
        self._store.add(trial)
        self._trials[trial.cell] = trial
        self._best = best_trial([trial] if self._best is None else [self._best, trial])
        if self._best is trial:
            promote(self._folder, trial.position)
        else:
            discard(self._folder, trial.position)

    def _best_accuracy(self) -> float | None:
        return None if self._best is None else self._best.accuracy


def effort(cell: Cell) -> int:
    """Roughly how long a cell's child takes beside others of as many blocks."""
    return sum(EFFORT[operation] for block in cell.blocks for _, operation in block.sides)


def child_seed(seed: int, cell: str) -> int:
    """A child's seed, from the run's and its cell alone: 63 bits of SHA-256."""
    digest = hashlib.sha256(f"{seed} {cell}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
