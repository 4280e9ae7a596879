"""The trial store: what a search has trained, in ``RUN/trials.sqlite``.

One process writes it; any number may read it while the search runs (write-ahead log). A trial is
committed once, whole, when its child has finished, so a killed search loses no finished child.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

SCHEMA_VERSION = 2

_FIRST_SCHEMA = """
CREATE TABLE trials (
    position INTEGER PRIMARY KEY,
    cell TEXT NOT NULL UNIQUE,
    level INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
    accuracy REAL,
    loss REAL,
    epoch_losses TEXT NOT NULL,
    seconds REAL NOT NULL,
    images_per_second REAL NOT NULL,
    images_seen INTEGER NOT NULL,
    parameters INTEGER NOT NULL,
    multiply_adds INTEGER NOT NULL,
    error TEXT,
    CHECK ((status = 'done') = (accuracy IS NOT NULL)),
    CHECK ((status = 'failed') = (error IS NOT NULL))
) STRICT;
CREATE TABLE levels (
    level INTEGER PRIMARY KEY,
    candidates INTEGER NOT NULL,
    rho_before REAL,
    rho_after REAL,
    surrogate_seconds REAL NOT NULL
) STRICT;
CREATE TABLE predictions (
    cell TEXT PRIMARY KEY REFERENCES trials (cell),
    before REAL,
    after REAL
) STRICT;
"""

_MIGRATIONS = (
    _FIRST_SCHEMA,
    """
ALTER TABLE trials ADD COLUMN evaluation_seconds REAL;
ALTER TABLE trials ADD COLUMN waiting_seconds REAL;
ALTER TABLE trials ADD COLUMN memory INTEGER;
ALTER TABLE trials ADD COLUMN device TEXT;
ALTER TABLE levels ADD COLUMN workers INTEGER;
ALTER TABLE levels ADD COLUMN waiting_seconds REAL;
""",
)
"""What makes each schema version of the one before it, from an empty file on."""


class StoreError(ValueError):
    """A trial store that cannot be used; the message names the file and what was expected."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One child that was trained, or failed to be.

    ``position`` is its place in the order in which the search asked for children, which does not
    depend on how many run side by side. ``accuracy`` is the validation accuracy in [0, 1], ``loss``
    the last epoch's mean training loss; both are None for a failed trial, whose ``error`` says why.

    Where its time went: ``seconds`` are its own, of them ``evaluation_seconds`` for its accuracy; its
    worker had been idle or starting for ``waiting_seconds``. ``memory`` is the most that was reserved for
    it on a GPU, in bytes. These and the ``device`` are None where nobody measured them.
    """

    position: int
    cell: str
    level: int
    status: Literal["done", "failed"]
    accuracy: float | None
    loss: float | None
    epoch_losses: tuple[float, ...]
    seconds: float
    images_per_second: float
    images_seen: int
    parameters: int
    multiply_adds: int
    error: str | None
    evaluation_seconds: float | None = None
    waiting_seconds: float | None = None
    memory: int | None = None
    device: str | None = None

    @property
    def training_seconds(self) -> float:
        """Of ``seconds``, those spent in training steps; 0 for a trial without a whole epoch."""
        return self.images_seen / self.images_per_second if self.images_per_second > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """One finished level: how many candidates it had and how well the surrogate ranked its children.

    ``rho_before`` is Spearman's rank correlation of predicted and measured accuracy over the level's
    children before the surrogate had seen them, ``rho_after`` the same after it was fitted to them;
    None where there was no surrogate yet or a rank correlation is undefined. ``workers`` trained its
    children; when no more children were left, they waited ``waiting_seconds`` for the last, added up over
    workers. Both are None where nobody measured them.
    """

    level: int
    candidates: int
    rho_before: float | None
    rho_after: float | None
    surrogate_seconds: float
    workers: int | None = None
    waiting_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The surrogate's prediction for a trial before its level was trained, and after fitting to it."""

    before: float | None
    after: float | None


class TrialStore:
    """Trials, levels and predictions of one run.

    Args:
        path: the SQLite file; created, with its tables, when it does not exist, and brought up to date
            when an earlier version made it.

    Raises:
        StoreError: the file is not a trial store, or a later version made it.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a trial that was reported is on the disk, even if the machine loses power.
            self._connection.execute("PRAGMA synchronous = FULL")
            version = self._version()
            if version < SCHEMA_VERSION:
                version = self._migrate()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path}: not a trial store ({error})") from error
        if version != SCHEMA_VERSION:
            raise StoreError(f"{path}: schema version {version}, expected {SCHEMA_VERSION} or less")

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _migrate(self) -> int:
        """Bring the file up to date, whole or not at all; another process may be about to do the same."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            for migration in _MIGRATIONS[self._version() :]:
                for statement in migration.split(";"):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return SCHEMA_VERSION

    def add(self, trial: Trial) -> None:
        """Commit one trial. Adding a cell or position twice is an error of the caller."""
        values = asdict(trial) | {"epoch_losses": json.dumps(trial.epoch_losses)}
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        with self._connection:
            self._connection.execute(f"INSERT INTO trials ({names}) VALUES ({places})", values)

    def trials(self) -> list[Trial]:
        """All trials, in search order."""
        names = ", ".join(field.name for field in fields(Trial))
        rows = self._connection.execute(f"SELECT {names} FROM trials ORDER BY position")
        return [_trial(row) for row in rows]

    def finish_level(self, level: Level, predictions: Mapping[str, Prediction]) -> None:
        """Commit a level and its children's predictions; a replayed level replaces itself.

        What is None of the replay, because it trained nothing, stays as it was.
        """
        names = [field.name for field in fields(Level)]
        values = ", ".join(f":{name}" for name in names)
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:-2])
        kept = ", ".join(f"{name} = coalesce(excluded.{name}, {name})" for name in names[-2:])
        with self._connection:
            self._connection.execute(
                f"INSERT INTO levels ({', '.join(names)}) VALUES ({values}) "
                f"ON CONFLICT (level) DO UPDATE SET {changes}, {kept}",
                asdict(level),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO predictions VALUES (?, ?, ?)",
                [(cell, prediction.before, prediction.after) for cell, prediction in predictions.items()],
            )

    def levels(self) -> list[Level]:
        """The finished levels, in order."""
        names = ", ".join(field.name for field in fields(Level))
        rows = self._connection.execute(f"SELECT {names} FROM levels ORDER BY level")
        return [Level(*row) for row in rows]

    def predictions(self) -> dict[str, Prediction]:
        """Predictions by cell text."""
        rows: Iterable[tuple[str, float | None, float | None]] = self._connection.execute(
            "SELECT cell, before, after FROM predictions"
        )
        return {cell: Prediction(before, after) for cell, before, after in rows}

    def close(self) -> None:
        """Close the file; the store must not be used afterwards."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _trial(row: tuple[object, ...]) -> Trial:
    values = dict(zip((field.name for field in fields(Trial)), row, strict=True))
    values["epoch_losses"] = tuple(json.loads(str(values["epoch_losses"])))
    return Trial(**values)  # type: ignore[arg-type]  # the table is STRICT, so the types are Trial's
