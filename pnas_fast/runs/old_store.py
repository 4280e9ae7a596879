"""Reading the trial stores of the first two schema versions, which knew progressive search alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.runs.database import StoreError, decode, explained
from pnas_fast.runs.store import StoredNote
from pnas_fast.space import Cell, CellError

VERSIONS = (1, 2)

_VALUES = (
    "accuracy", "loss", "seconds", "images_per_second", "images_seen", "parameters", "multiply_adds",
    "evaluation_seconds", "waiting_seconds", "memory",
)  # fmt: skip


def read_old(connection: sqlite3.Connection, path: Path, epochs: int) -> tuple[list[Trial], list[StoredNote]]:
    """Trials and notes of an old store, as the present one would hold them.

    Args:
        connection: to read with.
        path: for messages.
        epochs: of every child, by the run's configuration.
    """
    with explained(path):
        trials = _rows(connection, "trials", "position")
        levels = _rows(connection, "levels", "level")
        predictions = {row["cell"]: row for row in _rows(connection, "predictions", "cell")}
    try:
        return [_trial(row, predictions, epochs, path) for row in trials], list(
            _notes(levels, trials, predictions)
        )
    except (CellError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: not a trial store, or damaged ({error})") from error


def _rows(connection: sqlite3.Connection, table: str, order: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY {order}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _trial(row: dict[str, Any], predictions: dict[str, dict[str, Any]], epochs: int, path: Path) -> Trial:
    note: dict[str, float | int | str] = {"level": row["level"]}
    before = predictions.get(row["cell"], {}).get("before")
    if before is not None:
        note["predicted"] = before
    values = {name: float(row[name]) for name in _VALUES if row.get(name) is not None}
    losses = decode(row["epoch_losses"], tuple[float, ...], f"{path}: trial {row['position']}")
    measurement = Measurement(row["status"], values, row["error"], {"loss": losses}, row.get("device"))
    return Trial(row["position"], Proposal(Cell.parse(row["cell"]), epochs, note=note), measurement)


def _notes(
    levels: list[dict[str, Any]], trials: list[dict[str, Any]], predictions: dict[str, dict[str, Any]]
) -> Iterable[StoredNote]:
    told = 0
    for level in levels:
        children = [row for row in trials if row["level"] == level["level"]]
        told += len(children)
        after = {
            str(row["position"]): predictions[row["cell"]]["after"]
            for row in children
            if row["cell"] in predictions
        }
        known = {name: value for name, value in level.items() if value is not None}
        workers, waited = known.pop("workers", None), known.pop("waiting_seconds", None)
        yield StoredNote("level", told, known | {"children": len(children), "predicted_after": after})
        if workers is not None and waited is not None:
            yield StoredNote("drained", told, {"workers": workers, "waited": waited})
