"""The trial store keeps what it was given, holds earlier proposals, and refuses what is not a sound store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pnas_fast.protocols import MachineError, Measurement, Proposal, Trial
from pnas_fast.runs import database
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import _SCHEMA, SCHEMA_VERSION, StoredNote, TrialStore
from pnas_fast.space import Cell

CELL = Cell.parse("1:identity+0:sep3x3")
DONE = Measurement(
    "done",
    {
        "accuracy": 0.75,
        "loss": 0.5,
        "seconds": 2.5,
        "images_seen": 2000.0,
        "parameters": 123.0,
        "latency_ms": 4.5,
    },
    curves={"loss": (1.5, 0.5)},
    device="cuda:1",
)
FAILED = Measurement("failed", {"seconds": 1.0, "parameters": 123.0}, "diverged")
OLD = Path(__file__).parent / "data" / "run_of_schema_2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.sqlite"


def proposals(*texts: str) -> list[Proposal]:
    return [Proposal(Cell.parse(text), 3, note={"level": 1, "predicted": 0.5}) for text in texts]


def filled(path: Path) -> list[Trial]:
    """A store of a done, a failed and a repeated cell; its trials."""
    asked = proposals(str(CELL), "0:sep3x3+1:sep3x3", "0:sep3x3+1:identity")
    with TrialStore(path, write=True) as store:
        store.propose(0, asked, "e", "random")
        store.add(asked[1].key("e"), FAILED)
        store.add(asked[0].key("e"), DONE)
        store.note("level", 2, {"level": 1, "rho_after": None})
    return [Trial(0, asked[0], DONE), Trial(1, asked[1], FAILED), Trial(2, asked[2], DONE)]


def test_trials_come_back_by_number_and_a_twin_shares_its_measurement(path: Path) -> None:
    trials = filled(path)
    with TrialStore(path) as store:
        assert store.trials() == trials
        assert store.notes() == [StoredNote("level", 2, {"level": 1, "rho_after": None})]


CUT_SHORT = """
import os, signal, sqlite3, sys
from pathlib import Path
from pnas_fast.runs.store import TrialStore

path, asked, connect = Path(sys.argv[1]), 99, sqlite3.connect

class Mortal(sqlite3.Connection):
    def execute(self, *arguments):
        global asked
        if asked == statement:
            os.kill(os.getpid(), signal.SIGKILL)
        asked += 1
        return super().execute(*arguments)

sqlite3.connect = lambda *arguments, **named: connect(*arguments, factory=Mortal, **named)
for statement in range(50):
    path.unlink(missing_ok=True)
    if not (child := os.fork()):
        asked = 0
        TrialStore(path, write=True)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if path.exists():
        with TrialStore(path) as store:
            assert store.trials() == []
    print(status, path.exists())
    if status == 0:
        break
"""


def test_a_store_is_there_whole_or_not_at_all_wherever_its_making_is_cut_short(path: Path) -> None:
    """Killed before each statement in turn until none is left, over what the one before left."""
    script = [sys.executable, "-c", CUT_SHORT, str(path)]
    *killed, last = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    assert set(killed) == {"-9 False", "-9 True"}
    assert last == "0 True"
    assert not [left for left in path.parent.iterdir() if not left.name.startswith(path.name)]


def test_keys_differ_by_budget_replica_and_evaluator(path: Path) -> None:
    filled(path)
    with TrialStore(path) as store:
        key = Proposal(CELL, 3).key("e")
        assert store.measurement(key) == DONE
        for other in (Proposal(CELL, 4).key("e"), Proposal(CELL, 3, 1).key("e"), Proposal(CELL, 3).key("f")):
            assert store.measurement(other) is None


def test_a_stored_proposal_holds(path: Path) -> None:
    filled(path)
    other = proposals("0:identity+0:identity", "1:sep3x3+0:sep3x3")
    with TrialStore(path, write=True) as store:
        held = store.propose(0, other, "e", "random")
        assert held[0] == proposals(str(CELL))[0]
        assert held[1] is other[1], "the same cell in another order is the same proposal"


def test_forgetting_proposals_keeps_measurements_and_forgetting_failures_those_that_are_done(
    path: Path,
) -> None:
    filled(path)
    with TrialStore(path, write=True) as store:
        assert store.forget_failed() == 1
        assert [trial.number for trial in store.trials()] == [0, 2]
        store.forget_proposals()
        assert (store.trials(), store.notes()) == ([], [])
        assert store.measurement(Proposal(CELL, 3).key("e")) == DONE


def test_what_was_measured_elsewhere_is_taken_over_and_changes_nothing_that_is_known(path: Path) -> None:
    trials = filled(path)
    new = Proposal(Cell.parse("1:identity+1:identity"), 3).key("e")
    with TrialStore(path, write=True) as store:
        store.adopt({new: DONE, Proposal(CELL, 3).key("e"): FAILED})
        assert store.measurement(new) == DONE
        assert store.measurement(Proposal(CELL, 3).key("e")) == DONE
        assert store.trials() == trials, "nobody has proposed it"


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_a_commit_waits_for_the_disk_unless_it_need_not(path: Path, durable: bool, level: int) -> None:
    with closing(database.connect_to_write(path, durable)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_a_note_that_is_made_again_changes_nothing(path: Path) -> None:
    with TrialStore(path, write=True) as store:
        store.note("level", 5, {"seconds": 1.0})
        store.note("level", 5, {"seconds": 2.0})
        assert store.notes() == [StoredNote("level", 5, {"seconds": 1.0})]


def test_the_promised_columns_can_be_read_by_anyone_while_it_is_open(path: Path) -> None:
    filled(path)
    columns = (
        "number, cell, level, status, accuracy, loss, seconds, images_seen, parameters, multiply_adds, "
        "error, strategy"
    )
    with TrialStore(path, write=True), closing(sqlite3.connect(path)) as reader:
        rows = reader.execute(f"SELECT {columns} FROM trials").fetchall()
        (mode,) = reader.execute("PRAGMA journal_mode").fetchone()
    assert rows[0] == (0, str(CELL), 1, "done", 0.75, 0.5, 2.5, 2000, 123, None, None, "random")
    assert rows[1][3:6] == ("failed", None, None)
    assert rows[1][-2:] == ("diverged", "random")
    assert mode == "wal"


def test_nothing_younger_than_sqlite_3_26_is_asked_for() -> None:
    statements = " ".join(_SCHEMA)
    for word in ("STRICT", "RETURNING", "json", "->", "GENERATED", "MATERIALIZED"):
        assert word not in statements


# What is not a sound store.


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def emptied_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


def other_text(path: Path) -> None:
    path.write_text("this is not a database, " * 400)


def other_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")


def later_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def told(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA ignore_check_constraints = 1")
            connection.execute(statement)

    return damage


DAMAGES = {
    "truncated": truncated,
    "an empty page": emptied_page,
    "text": other_text,
    "another program's tables": other_tables,
    "a later version": later_version,
    "a missing table": told("DROP TABLE proposals"),
    "a missing column": told("ALTER TABLE measurements RENAME COLUMN curves TO bends"),
    "values that are null": told("""UPDATE measurements SET "values" = 'null'"""),
    "values that are text": told("""UPDATE measurements SET "values" = '{"accuracy": "high"}'"""),
    "an accuracy of -1": told("""UPDATE measurements SET "values" = '{"accuracy": -1}'"""),
    "an infinite loss": told("""UPDATE measurements SET "values" = '{"accuracy": 0.5, "loss": 1e999}'"""),
    "deep nesting": told(f"""UPDATE measurements SET curves = '{'{"a":' * 50_000}'"""),
    "a blob": told("""UPDATE measurements SET "values" = x'ff00'"""),
    "a cell of another space": told("UPDATE proposals SET cell = '0:sep9x9+0:sep3x3'"),
    "a note that is a list": told("UPDATE proposals SET note = '[]'"),
}


def refusal(path: Path) -> str | None:
    """What is said of a store that is read whole; None where nothing is wrong with it."""
    try:
        with TrialStore(path) as store:
            store.trials()
            store.notes()
    except (StoreError, MachineError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_read_back_is_checked_and_left_as_it_was(
    damage: Callable[[Path], None], path: Path, tmp_path: Path
) -> None:
    filled(path)
    damage(path)
    before = path.read_bytes()
    message = refusal(path)
    assert message is not None
    assert str(path) in message
    assert "\n" not in message
    assert path.read_bytes() == before


def test_flipped_bits_are_refused_or_harmless(path: Path) -> None:
    filled(path)
    good = path.read_bytes()
    for place in range(0, len(good), 97):
        flipped = bytearray(good)
        flipped[place] ^= 0x41
        path.write_bytes(flipped)
        assert "\n" not in (refusal(path) or "")


def test_a_folder_or_a_dangling_link_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    for write in (False, True):
        with pytest.raises(StoreError):
            TrialStore(path, write=write)
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(StoreError, match="is no file"):
        TrialStore(path)


def test_a_full_disk_and_a_file_that_is_held_are_the_machines_fault(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    with TrialStore(path, write=True) as store:
        store._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(MachineError, match="the disk is full: make room, then run the same command"):
            store.set_fact("name", "long " * 100_000)
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.01)
    with closing(sqlite3.connect(path)) as other, TrialStore(path, write=True) as store:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MachineError, match="another program holds it"):
            store.set_fact("a", "b")


# Reading without the right to write.


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    folder.mkdir()
    filled(folder / "trials.sqlite")
    yield folder
    folder.chmod(0o700)


def test_reading_leaves_nothing_behind(read_only: Path) -> None:
    with TrialStore(read_only / "trials.sqlite") as store:
        assert len(store.trials()) == 3
    assert [entry.name for entry in read_only.iterdir()] == ["trials.sqlite"]


def test_what_a_killed_process_left_in_the_log_is_read(read_only: Path, tmp_path: Path) -> None:
    source = read_only / "trials.sqlite"
    copy = tmp_path / "copy"
    copy.mkdir()
    with TrialStore(source, write=True) as store:
        asked = proposals("0:identity+1:identity")
        store.propose(3, asked, "e", "random")
        store.add(asked[0].key("e"), DONE)
        for name in ("trials.sqlite", "trials.sqlite-wal"):
            shutil.copy(read_only / name, copy / name)
    with TrialStore(copy / "trials.sqlite") as store:
        assert len(store.trials()) == 4


def test_a_run_of_an_earlier_version_is_read_and_not_continued(tmp_path: Path) -> None:
    record = RunRecord.load(OLD)
    assert record.is_of_earlier_version
    assert (len(record.trials), record.images_seen) == (25, 6400)
    assert record.best is not None
    assert str(record.best.cell) == "1:identity+1:identity,2:identity+2:identity"
    assert [(note.at, note.values["level"]) for note in record.notes_named("level")] == [(21, 1), (25, 2)]
    assert record.trials[22].proposal.note["level"] == 2
    assert "predicted" in record.trials[22].proposal.note
    shutil.copytree(OLD, tmp_path / "run")
    before = (tmp_path / "run" / "trials.sqlite").read_bytes()
    with pytest.raises(StoreError, match=r"was made by an earlier version, .* choose another --out"):
        TrialStore(tmp_path / "run" / "trials.sqlite", write=True)
    assert (tmp_path / "run" / "trials.sqlite").read_bytes() == before
