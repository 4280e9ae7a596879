"""Carrying out the runs of a comparison: each an ordinary search, none twice, no cell trained twice."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from rich.console import Console

from pnas_fast.cli.ending import Ending, Stop
from pnas_fast.compare.bar import Bar
from pnas_fast.compare.plan import Plan, Planned
from pnas_fast.compare.processes import run_side_by_side, workers_for
from pnas_fast.evaluation.guard import make_evaluator
from pnas_fast.protocols import DataSource, Key, Measurement
from pnas_fast.runs.folder import TRIALS
from pnas_fast.runs.history import is_finished
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.parts import make_spec
from pnas_fast.search.run import Search


def evaluator_identity(plan: Plan, data: DataSource) -> str:
    """The identity of the evaluator that all runs of a plan have.

    Raises:
        EvaluatorError, ConfigError: there is no such evaluator.
    """
    config = next(iter(plan.configs.values()))
    return make_evaluator(make_spec(config, data.identity())).identity


def carry_out(
    plan: Plan, folder: Path, data: DataSource, console: Console, stop: Stop | None = None
) -> list[RunRecord]:
    """Run what has not been run to its end; the records of all runs.

    Where trainings are shared, a run is first told what the runs before it measured: in its folder it looks
    as if it had trained all of its children, and that is what it is said to have cost.

    Args:
        plan: of the comparison.
        folder: of the comparison, which nobody else uses.
        data: of all runs, cut to their training images.
        console: where people look.
        stop: who asks this ends the comparison once the children of the run it is at are over.

    Raises:
        Ending: it was asked to stop; nothing finished is lost.
    """
    runs = plan.runs(folder)
    with Bar(console, runs) as bar:
        finished = {planned.folder for planned in runs if _is_finished(planned)}
        left = list[Planned]()
        for planned in runs:
            if planned.folder in finished:
                bar.end(planned, skipped=True)
            else:
                left.append(planned)
        if plan.is_table and (workers := workers_for(left)) > 1:
            run_side_by_side(left, workers, bar.end)
        else:
            _run_in_turn(plan, runs, finished, data, bar, stop or Stop())
    return [RunRecord.load(planned.folder) for planned in runs]


def _run_in_turn(
    plan: Plan,
    runs: Sequence[Planned],
    finished: Container[Path],
    data: DataSource,
    bar: Bar,
    stop: Stop,
) -> None:
    """Run what is not finished, each told what the runs before it measured where trainings are shared."""
    evaluator = evaluator_identity(plan, data)
    shares = not (plan.independent or plan.is_table)
    known: dict[Key, Measurement] = {}
    for planned in runs:
        if planned.folder not in finished:
            if stop.asked:
                raise Ending
            bar.begin(planned)
            Search(
                planned.config, data, planned.folder, others=(bar,), known=known, finishing=False, stop=stop
            ).run()
            stop.drains(None)
            bar.end(planned)
        if shares:
            record = RunRecord.load(planned.folder)
            for trial in (*record.trials, *record.finals):
                known[trial.proposal.key(evaluator)] = trial.measurement


def _is_finished(planned: Planned) -> bool:
    path = planned.folder / TRIALS
    if not path.is_file():
        return False
    with TrialStore(path) as store:
        return is_finished(planned.config, store)
