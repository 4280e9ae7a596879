"""The trial store keeps what it was given, and refuses what is not one."""

import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pnas_fast.runs import store as store_module
from pnas_fast.runs.store import (
    _FIRST_SCHEMA,
    SCHEMA_VERSION,
    Level,
    Prediction,
    StoreError,
    Trial,
    TrialStore,
)

DONE = Trial(
    position=0,
    cell="0:sep3x3+1:identity",
    level=1,
    status="done",
    accuracy=0.75,
    loss=0.5,
    epoch_losses=(1.5, 0.5),
    seconds=2.5,
    images_per_second=1000.0,
    images_seen=2000,
    parameters=123,
    multiply_adds=456,
    error=None,
    evaluation_seconds=0.25,
    waiting_seconds=1.25,
    memory=2**33,
    device="cuda:1",
)
FAILED = replace(
    DONE,
    position=1,
    cell="0:sep3x3+1:sep3x3",
    status="failed",
    accuracy=None,
    loss=None,
    epoch_losses=(),
    error="diverged",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.sqlite"


def test_trials_come_back_in_search_order(path: Path) -> None:
    with TrialStore(path) as store:
        store.add(FAILED)
        store.add(DONE)
    with TrialStore(path) as store:
        assert store.trials() == [DONE, FAILED]


def test_levels_and_predictions_are_replaced_by_a_replay(path: Path) -> None:
    with TrialStore(path) as store:
        store.add(DONE)
        store.finish_level(Level(1, 136, None, 0.5, 1.0), {DONE.cell: Prediction(None, 0.5)})
        store.finish_level(Level(1, 136, None, 0.75, 2.0), {DONE.cell: Prediction(0.25, 0.75)})
        assert store.levels() == [Level(1, 136, None, 0.75, 2.0)]
        assert store.predictions() == {DONE.cell: Prediction(0.25, 0.75)}


def test_a_replay_that_trains_nothing_leaves_what_was_measured(path: Path) -> None:
    level = Level(1, 136, None, 0.5, 1.0, 4, 2.5)
    with TrialStore(path) as store:
        store.finish_level(level, {})
        store.finish_level(replace(level, surrogate_seconds=3.0, workers=None, waiting_seconds=None), {})
        assert store.levels() == [replace(level, surrogate_seconds=3.0)]


def test_training_takes_what_the_rate_says() -> None:
    assert DONE.training_seconds == 2.0
    assert replace(DONE, images_per_second=0.0).training_seconds == 0.0


def old_store(path: Path) -> None:
    """A store as the first version left it, with a finished level and a trial of the next."""
    connection = sqlite3.connect(path)
    connection.executescript(
        f"""
        BEGIN; {_FIRST_SCHEMA} PRAGMA user_version = 1;
        INSERT INTO trials VALUES
            (0, '{DONE.cell}', 1, 'done', 0.75, 0.5, '[1.5, 0.5]', 2.5, 1000.0, 2000, 123, 456, NULL);
        INSERT INTO levels VALUES (1, 136, NULL, 0.5, 1.0);
        INSERT INTO predictions VALUES ('{DONE.cell}', NULL, 0.5);
        COMMIT;
        """
    )
    connection.close()


def test_an_earlier_versions_store_opens_and_goes_on(path: Path) -> None:
    old_store(path)
    new = ("evaluation_seconds", "waiting_seconds", "memory", "device")
    was = replace(DONE, **dict.fromkeys(new))
    for _ in range(2):
        with TrialStore(path) as store:
            assert store.trials() == [was]
            assert store.levels() == [Level(1, 136, None, 0.5, 1.0, None, None)]
            assert store.predictions() == {DONE.cell: Prediction(None, 0.5)}
    with TrialStore(path) as store:
        store.add(FAILED)
        store.finish_level(Level(1, 136, None, 0.75, 2.0, 2, 0.5), {FAILED.cell: Prediction(None, None)})
        assert store.trials() == [was, FAILED]
        assert store.levels() == [Level(1, 136, None, 0.75, 2.0, 2, 0.5)]
    connection = sqlite3.connect(path)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(trials)")]
    connection.close()
    assert sorted(columns) == sorted(item.name for item in fields(Trial))


def test_an_update_that_is_cut_short_has_not_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_store(path)
    broken = (*store_module._MIGRATIONS[:-1], store_module._MIGRATIONS[-1] + "ALTER TABLE missing ADD x;")
    monkeypatch.setattr(store_module, "_MIGRATIONS", broken)
    with pytest.raises(StoreError, match="no such table: missing"):
        TrialStore(path)
    monkeypatch.undo()
    with TrialStore(path) as store:
        assert len(store.trials()) == 1


def test_a_cell_is_never_stored_twice(path: Path) -> None:
    with TrialStore(path) as store:
        store.add(DONE)
        with pytest.raises(sqlite3.IntegrityError):
            store.add(replace(DONE, position=7))
        assert store.trials() == [DONE]


@pytest.mark.parametrize(
    "trial", [replace(DONE, accuracy=None), replace(DONE, error="?"), replace(FAILED, error=None)]
)
def test_a_trial_is_done_with_an_accuracy_or_failed_with_a_reason(path: Path, trial: Trial) -> None:
    with TrialStore(path) as store, pytest.raises(sqlite3.IntegrityError):
        store.add(trial)


def test_the_promised_columns_can_be_read_by_anyone_while_it_is_open(path: Path) -> None:
    columns = "cell, level, status, accuracy, seconds, images_seen, parameters, multiply_adds, error"
    with TrialStore(path) as store:
        store.add(DONE)
        reader = sqlite3.connect(path)
        row = reader.execute(f"SELECT {columns} FROM trials").fetchone()
        (mode,) = reader.execute("PRAGMA journal_mode").fetchone()
        reader.close()
    assert row == (DONE.cell, 1, "done", 0.75, 2.5, 2000, 123, 456, None)
    assert mode == "wal"


def test_another_schema_or_another_file_is_refused(path: Path) -> None:
    TrialStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(
        StoreError, match=rf"schema version {SCHEMA_VERSION + 1}, expected {SCHEMA_VERSION} or less"
    ):
        TrialStore(path)
    path.write_text("this is not a database, " * 100)
    with pytest.raises(StoreError, match="not a trial store"):
        TrialStore(path)
