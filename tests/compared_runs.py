"""Runs made by hand, for comparisons of which the outcome is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnas_fast.candidates import one_block_cells
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import StoredNote
from pnas_fast.space import Cell

CELLS = [Cell.from_codes(codes) for codes in one_block_cells()]


def trial(number: int, accuracy: float | None, cell: int | None = None, **values: float) -> Trial:
    """A child with an accuracy, or a failed one; by default of a cell of its own."""
    proposal = Proposal(CELLS[number if cell is None else cell], 1)
    if accuracy is None:
        return Trial(number, proposal, Measurement("failed", {**values}, "diverged"))
    return Trial(number, proposal, Measurement("done", {"accuracy": accuracy, **values}))


def record(
    strategy: str,
    accuracies: Sequence[float | None],
    seed: int = 0,
    notes: Sequence[StoredNote] = (),
    **config: Any,
) -> RunRecord:
    """A run whose children have these accuracies, and took 10 images and 2 seconds each."""
    trials = [trial(n, value, images_seen=10, seconds=2.0) for n, value in enumerate(accuracies)]
    values = {"strategy": strategy, "seed": seed, "epochs": 1, "evaluator": "train", **config}
    return RunRecord(Path(f"{strategy}-{seed}"), values, trials, list(notes))
