"""The trial store, ``RUN/trials.sqlite``: every measurement once, who asked for it, and what was noted.

One process writes it; any number may read it meanwhile. A measurement is committed whole when its child
has finished, so a killed search loses no finished child. ``measurements`` are facts; ``proposals`` and
``notes`` follow from them and the configuration, and are kept so that they hold on other machines too.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pnas_fast.files import replacing
from pnas_fast.protocols import Key, Measurement, Proposal, Trial
from pnas_fast.runs.database import (
    StoreError,
    connect_to_read,
    connect_to_write,
    decode,
    explained,
    version_of,
)
from pnas_fast.space import Cell, CellError

SCHEMA_VERSION = 3

_COLUMNS = ("accuracy", "loss", "seconds", "images_seen", "parameters", "multiply_adds")
"""Values that have a column of their own, for people who ask with SQL."""

_INSERT = f"INSERT INTO measurements VALUES ({', '.join('?' * (len(_COLUMNS) + 9))})"

# No STRICT, no json_extract: both are younger than the SQLite of distributions in use.
_SCHEMA = (
    """CREATE TABLE measurements (
        cell TEXT NOT NULL, budget INTEGER NOT NULL, replica INTEGER NOT NULL, evaluator TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
        error TEXT CHECK ((status = 'failed') = (error IS NOT NULL)),
        accuracy REAL, loss REAL, seconds REAL,
        images_seen INTEGER, parameters INTEGER, multiply_adds INTEGER,
        "values" TEXT NOT NULL, curves TEXT NOT NULL, device TEXT,
        PRIMARY KEY (cell, budget, replica, evaluator))""",
    """CREATE TABLE proposals (
        number INTEGER PRIMARY KEY, cell TEXT NOT NULL, canonical TEXT NOT NULL, blocks INTEGER NOT NULL,
        budget INTEGER NOT NULL, replica INTEGER NOT NULL, evaluator TEXT NOT NULL, strategy TEXT NOT NULL,
        note TEXT NOT NULL)""",
    """CREATE TABLE notes (
        name TEXT NOT NULL, at INTEGER NOT NULL, "values" TEXT NOT NULL, PRIMARY KEY (name, at))""",
    "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE VIEW trials AS
        SELECT p.number, p.cell, p.blocks AS level, m.status, m.accuracy, m.loss, m.seconds, m.images_seen,
            m.parameters, m.multiply_adds, m.error, p.strategy, p.budget, p.replica
        FROM proposals p JOIN measurements m ON m.cell = p.canonical AND m.budget = p.budget
            AND m.replica = p.replica AND m.evaluator = p.evaluator
        ORDER BY p.number""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


@dataclass(frozen=True, slots=True)
class StoredNote:
    """A note that was kept: its name, when it was made, counted in trials or proposals, and its values."""

    name: str
    at: int
    values: Mapping[str, Any]


class TrialStore:
    """Measurements, proposals, notes and facts of one run.

    Args:
        path: the SQLite file.
        write: whether this process writes it; then it is created where it does not exist.
        durable: whether a commit waits for the disk; what costs nothing to measure again need not.

    Raises:
        StoreError: the file is damaged, something else, or of another version.
        MachineError: the disk is full, or another program holds the file.
    """

    def __init__(self, path: Path, *, write: bool = False, durable: bool = True) -> None:
        self._path = path
        self._known: dict[Key, Measurement] = {}
        if write and not os.path.lexists(path):
            _create(path)
        self._connection = connect_to_write(path, durable) if write else connect_to_read(path)
        try:
            with explained(path):
                self._prepare(write)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, write: bool) -> None:
        version = version_of(self._connection)
        if version != SCHEMA_VERSION:
            if write and 0 < version < SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path}: was made by an earlier version, whose runs can be read but not "
                    "continued; choose another --out"
                )
            found = "is no trial store" if version == 0 else f"has schema version {version}"
            raise StoreError(f"{self._path}: {found}, expected version {SCHEMA_VERSION}")

    def measurement(self, key: Key) -> Measurement | None:
        """What is known under a key."""
        if key in self._known:
            return self._known[key]
        query = 'SELECT status, error, "values", curves, device FROM measurements'
        where = "WHERE cell = ? AND budget = ? AND replica = ? AND evaluator = ?"
        with explained(self._path):
            row = self._connection.execute(f"{query} {where}", key).fetchone()
        if row is None:
            return None
        return self._known.setdefault(key, self._measurement(row, key.cell))

    def add(self, key: Key, measurement: Measurement) -> None:
        """Commit a measurement. Adding a key twice is an error of the caller."""
        self._write(_INSERT, _row(key, measurement))

    def adopt(self, known: Mapping[Key, Measurement]) -> None:
        """Take over what was measured elsewhere, where nothing is known under its key."""
        rows = [_row(key, measurement) for key, measurement in known.items()]
        with explained(self._path), self._connection:
            self._connection.executemany(_INSERT.replace("INSERT", "INSERT OR IGNORE"), rows)

    def propose(
        self, first: int, proposals: Sequence[Proposal], evaluator: str, strategy: str
    ) -> list[Proposal]:
        """Remember what a strategy asked for, as the ``first``-th and those that follow; returns what holds.

        A proposal that was stored before holds, whatever is asked now: on another processor or version of
        PyTorch, last bits may have tipped a choice over. Only its evaluator is brought up to date.
        """
        query = "SELECT cell, budget, replica, note FROM proposals WHERE number = ?"
        held = list[Proposal]()
        with explained(self._path), self._connection:
            for number, proposal in enumerate(proposals, first):
                stored = self._connection.execute(query, (number,)).fetchone()
                if stored is None:
                    self._insert(number, proposal, evaluator, strategy)
                    held.append(proposal)
                    continue
                update = "UPDATE proposals SET evaluator = ? WHERE number = ? AND evaluator != ?"
                self._connection.execute(update, (evaluator, number, evaluator))
                earlier = self._proposal(stored, number)
                same = earlier.key(evaluator) == proposal.key(evaluator)
                held.append(proposal if same else earlier)
        return held

    def _insert(self, number: int, proposal: Proposal, evaluator: str, strategy: str) -> None:
        key = proposal.key(evaluator)
        row = [number, str(proposal.cell), key.cell, len(proposal.cell), key.budget, key.replica, evaluator]
        row += [strategy, json.dumps(dict(proposal.note))]
        self._connection.execute(f"INSERT INTO proposals VALUES ({', '.join('?' * len(row))})", row)

    def forget_proposals(self) -> None:
        """Forget what followed from another configuration; measurements stay."""
        self._write("DELETE FROM proposals", [])
        self._write("DELETE FROM notes", [])

    def forget_failed(self) -> int:
        """Forget failed measurements, so that they are made again; how many there were."""
        self._known.clear()
        return self._write("DELETE FROM measurements WHERE status = 'failed'", [])

    def note(self, name: str, at: int, values: Mapping[str, Any]) -> None:
        """Keep a note. One that is made again, because a run is replayed, changes nothing."""
        self._write("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", [name, at, json.dumps(dict(values))])

    def trials(self) -> list[Trial]:
        """All proposals that have been measured, in order of their number; each cell is parsed once."""
        query = """SELECT p.number, p.cell, p.budget, p.replica, p.note,
                m.status, m.error, m."values", m.curves, m.device
            FROM proposals p JOIN measurements m ON m.cell = p.canonical AND m.budget = p.budget
                AND m.replica = p.replica AND m.evaluator = p.evaluator
            ORDER BY p.number"""
        with explained(self._path):
            rows = self._connection.execute(query).fetchall()
        return [
            Trial(row[0], self._proposal(row[1:5], row[0]), self._measurement(row[5:], row[1]))
            for row in rows
        ]

    def notes(self) -> list[StoredNote]:
        """The kept notes, in order."""
        with explained(self._path):
            rows = self._connection.execute(
                'SELECT name, at, "values" FROM notes ORDER BY at, name'
            ).fetchall()
        return [
            StoredNote(name, at, decode(text, dict[str, Any], f"{self._path}: note {name} {at}"))
            for name, at, text in rows
        ]

    def fact(self, name: str) -> str | None:
        """A fact about the run; None where it was never set."""
        with explained(self._path):
            row = self._connection.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        """Set or change a fact about the run."""
        self._write("INSERT OR REPLACE INTO run VALUES (?, ?)", [name, value])

    def _write(self, statement: str, values: list[Any]) -> int:
        with explained(self._path), self._connection:
            return self._connection.execute(statement, values).rowcount

    def _measurement(self, row: Sequence[Any], cell: str) -> Measurement:
        status, error, values, curves, device = row
        where = f"{self._path}: measurement of {cell}"
        read = decode(values, dict[str, float], where)
        if status == "done" and not 0 <= read.get("accuracy", math.nan) <= 1:
            raise StoreError(f"{where}: accuracy is {read.get('accuracy')}, allowed is 0 to 1")
        if any(not math.isfinite(value) for value in read.values()):
            raise StoreError(f"{where}: values are {values}, allowed are finite numbers")
        return Measurement(status, read, error, decode(curves, dict[str, tuple[float, ...]], where), device)

    def _proposal(self, row: Sequence[Any], number: int) -> Proposal:
        cell, budget, replica, note = row
        where = f"{self._path}: proposal {number}"
        try:
            return Proposal(
                Cell.parse(cell), int(budget), int(replica), decode(note, dict[str, int | float | str], where)
            )
        except (CellError, TypeError, ValueError) as error:
            raise StoreError(f"{where}: {error}") from error

    def close(self) -> None:
        """Close the file; the store must not be used afterwards."""
        try:
            self._connection.close()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot be closed ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create(path: Path) -> None:
    """Make a file with the whole schema, or none: a search may be killed here and another may look."""
    with explained(path), replacing(path) as temporary:
        connection = sqlite3.connect(temporary)
        try:
            # A journal on the disk would be left by a process that is killed.
            connection.execute("PRAGMA journal_mode = MEMORY")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    connection.execute(statement)
        finally:
            connection.close()


def _row(key: Key, measurement: Measurement) -> list[Any]:
    """A row of the table ``measurements``."""
    measurement = _storable(measurement)
    values = measurement.values
    columns = [values.get(name) for name in _COLUMNS]
    if not measurement.done:
        columns[0] = columns[1] = None
    rest = [json.dumps(dict(values)), json.dumps(dict(measurement.curves)), measurement.device]
    return [*key, measurement.status, measurement.error, *columns, *rest]


def _storable(measurement: Measurement) -> Measurement:
    """What can be read back: finite numbers, an accuracy where it is done, text that is UTF-8."""
    values = {name: value for name, value in measurement.values.items() if math.isfinite(value)}
    curves = {name: tuple(filter(math.isfinite, curve)) for name, curve in measurement.curves.items()}
    status, error = measurement.status, measurement.error
    if status == "done" and not 0 <= values.get("accuracy", math.nan) <= 1:
        status, error = "failed", f"accuracy is {measurement.values.get('accuracy')}, allowed is 0 to 1"
    if error is not None:
        error = error.encode("utf-8", "backslashreplace").decode()
    return replace(measurement, status=status, values=values, curves=curves, error=error)
