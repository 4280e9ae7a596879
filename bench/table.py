"""The tables that strategies are compared on: whole spaces of cells, trained by the product itself.

    python bench/table.py three-levels              train what its file lacks (hours), and write it
    python bench/table.py three-levels --write      write what has been trained so far, and no more
    python bench/table.py three-levels --check 10   train ten of its rows again, drawn at random

The files are bench/tables/NAME.csv.gz, for `--evaluator table:FILE`. Training is an ordinary search in
runs/table-NAME, which may be killed at any moment: the same command goes on, also from a file alone. In the
end it says how far cells differ beside how far two trainings of one cell do.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from pnas_fast.evaluation import train_child
from pnas_fast.evaluation.guard import make_evaluator
from pnas_fast.evaluation.table import read_table, write_table
from pnas_fast.protocols import DataSource, Key, Measurement, Trial, child_seed
from pnas_fast.runs.folder import TRIALS
from pnas_fast.runs.record import RunRecord
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.parts import make_spec
from pnas_fast.search.run import Search
from pnas_fast.search.sources import source_of
from pnas_fast.space import OPERATIONS
from pnas_fast.threads import torch_threads

FOLDER = Path(__file__).with_name("tables")

_RECIPE = SearchConfig(
    strategy="exhaustive", replicas=2, data="fashion", train_images=2000, epochs=2, batch=16,
    learning_rate=0.05, repeats=1, filters=8, test_children=True, finalists=0,
)  # fmt: skip
"""The smallest recipe that was tried of which cells differ more than trainings of one cell: of twelve random
three-block cells of identity and max_pool3x3 with standard deviations of 0.022 and 0.012."""

TABLES = {
    "three-levels": replace(_RECIPE, blocks=3, operations=("identity", "max_pool3x3")),
    "two-blocks": replace(_RECIPE, blocks=2, operations=OPERATIONS, cells=136 + 3000),
}
"""10 + 165 + 3,840 cells of two operations, and 136 + 3,000 of the 31,620 with two blocks of all eight."""

VALUES = (
    "accuracy", "validation_loss", "test_accuracy", "test_loss", "seconds", "images_seen", "parameters",
    "multiply_adds", "validation_images", "test_images",
)  # fmt: skip
"""What the files keep of a measurement."""


def train(config: SearchConfig, data: DataSource, folder: Path, file: Path) -> None:
    """Train what neither the run nor the file has."""
    evaluator = make_evaluator(make_spec(config, data.identity())).identity
    known: dict[Key, Measurement] = {
        trial.proposal.key(evaluator): trial.measurement
        for trial in (read_table(file) if file.is_file() else [])
    }
    Search(config, data, folder, Console(), known=known).run()


def write(folder: Path, file: Path) -> list[Trial]:
    """Write what run and file have together; returns it, smaller cells and earlier replicas first."""
    trials = read_table(file) if file.is_file() else []
    if (folder / TRIALS).is_file():
        trials += RunRecord.load(folder).trials
    held = {trial.proposal.key(""): trial for trial in reversed(trials)}
    kept = [
        replace(trial, measurement=replace(trial.measurement, values=_kept(trial.measurement)))
        for trial in sorted(held.values(), key=_place)
    ]
    file.parent.mkdir(exist_ok=True)
    write_table(file, kept)
    return kept


def _place(trial: Trial) -> tuple[int, int, str]:
    return trial.proposal.replica, len(trial.cell), str(trial.cell.canonical())


def _kept(measurement: Measurement) -> dict[str, float]:
    return {name: measurement.values[name] for name in VALUES if name in measurement.values}


def spread(trials: Iterable[Trial], name: str) -> tuple[float, float]:
    """Standard deviations of a value: between cells, and between trainings of one cell.

    By the analysis of variance with one factor, over cells that were trained equally often and at least
    twice: within² is the mean of cells' variances, between² the variance of their means less within²/R.
    """
    values: dict[str, list[float]] = {}
    for trial in trials:
        if trial.done:
            values.setdefault(str(trial.cell.canonical()), []).append(trial.value(name))
    most = max(map(len, values.values()), default=0)
    rows = np.array([row for row in values.values() if len(row) == most])
    if most < 2 or len(rows) < 2:
        return float("nan"), float("nan")
    within = rows.var(axis=1, ddof=1).mean()
    between = max(rows.mean(axis=1).var(ddof=1) - within / most, 0.0)
    return float(np.sqrt(between)), float(np.sqrt(within))


def describe(trials: Sequence[Trial], file: Path) -> None:
    """Print how large a table is, and how far cells and trainings differ."""
    failed = sum(not trial.done for trial in trials)
    print(f"{file}: {len(trials):,} trainings, {failed} failed, {file.stat().st_size:,} bytes")
    for level in sorted({len(trial.cell) for trial in trials}):
        own = [trial for trial in trials if len(trial.cell) == level]
        print(f"  {level} blocks: {len({str(trial.cell) for trial in own}):,} cells, {len(own):,} trainings")
        for name in ("accuracy", "validation_loss", "test_accuracy"):
            between, within = spread(own, name)
            if within > 0:
                print(
                    f"    {name}: {between:.4f} between cells, {within:.4f} between trainings of one, ",
                    end="",
                )
                print(f"{between / within:.2f} times")


def check(config: SearchConfig, data: DataSource, file: Path, count: int) -> bool:
    """Train rows again, drawn at random, and say how they come out; whether all are the same."""
    rows = read_table(file)
    same = True
    for row in random.SystemRandom().sample(rows, min(count, len(rows))):
        seed = child_seed(config.children_seed, row.proposal)
        with torch_threads(config.threads):  # as in a worker: sums over more have other last bits
            result, _ = train_child(row.cell, replace(config, epochs=row.proposal.budget), data.open(), seed)
        same &= result.accuracy == row.accuracy
        print(f"{row.cell} replica {row.proposal.replica}: {row.accuracy}, again {result.accuracy}")
    return same


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 1 where rows come out otherwise than they are in the file."""
    parser = argparse.ArgumentParser(prog="bench/table.py", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TABLES)
    parser.add_argument("--run", type=Path, help="the folder of its trainings; runs/table-NAME by default")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="train nothing")
    what.add_argument("--check", type=int, default=0, metavar="N", help="train N of its rows again")
    wanted = parser.parse_args(arguments)
    config = TABLES[wanted.name].resolved()
    data = source_of(config)
    folder, file = wanted.run or Path("runs") / f"table-{wanted.name}", FOLDER / f"{wanted.name}.csv.gz"
    if wanted.check:
        return 0 if check(config, data, file, wanted.check) else 1
    if not wanted.write:
        train(config, data, folder, file)
    describe(write(folder, file), file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
