"""Weights of the children on a search's front, and the best of them that keeps a limit given later."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pnas_fast.files import replacing
from pnas_fast.objectives.aims import Aims
from pnas_fast.objectives.limits import Bound, parse_limits
from pnas_fast.protocols import Event, Finished, Trial
from pnas_fast.runs.disk import writing
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.weights import BEST, child_file

FRONT = "front"
"""The folder of their weights."""


def front_file(folder: Path, number: int) -> Path:
    """Where a run keeps the weights of a trial on its front."""
    return folder / FRONT / f"{number}.safetensors"


class FrontKeeper:
    """Keeps the weights of the trials on the front as long as they are on it, where there are costs.

    It is told of a finished child before its weights are moved or removed.

    Args:
        folder: the run.
        aims: of the search.
        trials: the search's so far.
    """

    def __init__(self, folder: Path, aims: Aims, trials: Iterable[Trial]) -> None:
        self._folder, self._aims = folder, aims
        self._front = aims.front(trials) if aims.costs else []
        self._sweep()

    def on(self, event: Event) -> None:
        """Keep a finished child's weights, or not."""
        match event:
            case Finished(task, measurement) if self._aims.costs and not task.proposal.is_final:
                trial = Trial(task.number, task.proposal, measurement)
                # By number, so that of trials alike the same one is kept whoever finishes first.
                together = sorted([*self._front, trial], key=lambda one: one.number)
                self._front = self._aims.front(together)
                source = child_file(self._folder, trial.number)
                if trial in self._front and source.is_file():
                    path = front_file(self._folder, trial.number)
                    with writing(path):
                        path.parent.mkdir(exist_ok=True)
                        with replacing(path) as temporary:
                            shutil.copyfile(source, temporary)
                self._sweep()
            case _:
                pass

    def _sweep(self) -> None:
        """Remove weights of what is on the front no longer."""
        kept = {front_file(self._folder, trial.number) for trial in self._front}
        for path in (self._folder / FRONT).glob("*.safetensors"):
            if path not in kept:
                path.unlink(missing_ok=True)


def pick(record: RunRecord, limits: Sequence[str]) -> tuple[Trial, Path]:
    """The best trial that keeps limits, and the file of its weights.

    That is the chosen cell's where it keeps them, else the most accurate one on the front that does.

    Args:
        record: of the run.
        limits: texts such as ``latency_ms<=5``, of the network to be deployed, or where a run does not know
            what that costs, of the child.

    Raises:
        RunError: there is none, or its weights are not there.
        ValueError: a text that is no limit.
    """
    bounds = parse_limits(limits)
    for trial in [*([record.best] if record.best else []), *record.front]:
        if all(_cost(record, trial, bound) <= bound.most for bound in bounds):
            break
    else:
        raise RunError(f"{record.folder}: no trial on the front keeps {_found(record, bounds)}")
    is_best = trial is record.best
    path = record.folder / BEST if is_best else front_file(record.folder, trial.number)
    if not path.is_file():
        raise RunError(
            f"{record.folder}: the weights of trial {trial.number}, {trial.cell}, are not there: a search "
            "keeps those of its front where --objectives has costs; pnas_fast.train --cell trains it"
        )
    return trial, path


def _cost(record: RunRecord, trial: Trial, bound: Bound) -> float:
    known = record.costs.get(bound.name)
    value = trial.value(bound.name) if known is None else known.of(trial)
    if math.isnan(value):
        raise RunError(f"{record.folder}: the run does not know {bound.name} of its cells")
    return value


def _found(record: RunRecord, bounds: Sequence[Bound]) -> str:
    """The limits, and the least of each that there is."""
    told = []
    for bound in bounds:
        least = min((_cost(record, trial, bound) for trial in record.front), default=math.nan)
        told.append(f"{bound} (the least there is {least:,.6g})")
    return " and ".join(told)
