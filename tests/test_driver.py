"""The driver: the same trials however they are carried out, each measured once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from made_up import KilledError, MadeUp, Shuffled, driven, progressive
from pnas_fast.protocols import (
    Event,
    Finished,
    Measurement,
    Noted,
    Proposal,
    Proposed,
    Said,
    StrategyError,
    Told,
    Trial,
    child_seed,
)  # fmt: skip
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.driver import OTHER_CHOICE, Driver
from pnas_fast.space import Cell
from pnas_fast.surrogate import Surrogate


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return driven(tmp_path_factory.mktemp("store") / "trials.sqlite")


def test_some_fail_and_levels_are_whole(undisturbed: list[Trial]) -> None:
    assert [len(trial.cell) for trial in undisturbed] == [1] * 21 + [2] * 6 + [3] * 6
    assert 0 < sum(not trial.done for trial in undisturbed) < 15
    assert [trial.number for trial in undisturbed] == list(range(33))


@pytest.mark.parametrize("workers", [2, 7, 40])
def test_the_order_of_finishing_does_not_matter(
    undisturbed: list[Trial], workers: int, tmp_path: Path
) -> None:
    assert driven(tmp_path / "trials.sqlite", workers, seed=workers) == undisturbed


def test_it_may_be_killed_at_any_moment(undisturbed: list[Trial], tmp_path: Path) -> None:
    moments = random.Random(5)
    kills = 0
    while True:
        left = [moments.randrange(1, 90)]

        def die(event: Event, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KilledError

        try:
            trials = driven(
                tmp_path / "trials.sqlite", 3, kills, emit=die if kills < 20 else lambda event: None
            )
        except KilledError:
            kills += 1
            continue
        if kills >= 20:
            break
        kills += 1
    assert trials == undisturbed


def test_what_is_known_is_not_measured_again(tmp_path: Path, undisturbed: list[Trial]) -> None:
    driven(tmp_path / "trials.sqlite")
    with TrialStore(tmp_path / "trials.sqlite", write=True) as store:
        executor, events = Shuffled(1, 0), list[Event]()
        Driver(progressive(), "progressive", MadeUp(), executor, store, 0, events.append).run()
    assert executor.evaluated == 0
    assert [event.trial for event in events if isinstance(event, Told)] == undisturbed
    assert all(event.replayed for event in events if isinstance(event, Told))


def test_the_longest_are_begun_first_and_tells_are_in_order_of_number(tmp_path: Path) -> None:
    started, told = list[int](), list[int]()

    class Sizes:
        """Cells of one, three and two blocks."""

        planned = 3

        def __init__(self) -> None:
            blocks = [Cell.parse("0:identity+0:identity").blocks[0]]
            self.ready = [Proposal(Cell(tuple(blocks * size)), 1) for size in (1, 3, 2)]

        def ask(self) -> list[Proposal]:
            ready, self.ready = self.ready, []
            return ready

        def tell(self, trial: Trial) -> None:
            told.append(trial.number)

    def listen(event: Event) -> None:
        if isinstance(event, Finished):
            started.append(event.task.number)

    driven(tmp_path / "trials.sqlite", strategy=Sizes(), emit=listen)
    assert (started, told) == ([1, 2, 0], [0, 1, 2])


def test_a_cell_that_comes_again_is_answered_and_another_replica_or_budget_is_not(tmp_path: Path) -> None:
    cell = Cell.parse("0:sep3x3+1:identity,2:sep3x3+0:identity")
    twin = Cell.parse("1:identity+0:sep3x3,0:identity+2:sep3x3")

    class Again:
        planned = 4
        asked = False

        def ask(self) -> list[Proposal]:
            again = (
                []
                if self.asked
                else [Proposal(cell, 1), Proposal(twin, 1), Proposal(cell, 1, 1), Proposal(cell, 2)]
            )
            self.asked = True
            return again

        def tell(self, trial: Trial) -> None:
            pass

    finished = list[int]()
    trials = driven(
        tmp_path / "trials.sqlite", strategy=Again(),
        emit=lambda event: finished.append(event.task.number) if isinstance(event, Finished) else None,
    )  # fmt: skip
    assert sorted(finished) == [0, 2, 3]
    assert trials[1].measurement == trials[0].measurement
    assert (
        child_seed(0, Proposal(cell, 1))
        == child_seed(0, Proposal(twin, 9))
        != child_seed(0, Proposal(cell, 1, 1))
    )


def test_stored_proposals_hold_where_a_machine_would_choose_otherwise(
    tmp_path: Path, undisturbed: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another processor: the surrogate's last bits differ, and so may its choice."""
    path = tmp_path / "trials.sqlite"

    def stop(event: Event) -> None:
        if isinstance(event, Finished) and event.task.number == 24:
            raise KilledError

    with pytest.raises(KilledError):
        driven(path, emit=stop)
    score = Surrogate.score
    monkeypatch.setattr(Surrogate, "score", lambda self, batch: -score(self, batch))
    said = list[str]()
    trials = driven(path, emit=lambda event: said.append(event.text) if isinstance(event, Said) else None)
    assert said == [OTHER_CHOICE]
    assert trials[:27] == undisturbed[:27]
    assert len(trials) == 33
    parents = {trial.cell.blocks for trial in trials[21:27]}
    assert all(trial.cell.blocks[:2] in parents for trial in trials[27:])


def test_a_level_that_failed_whole_ends_the_search_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUp, "measure", lambda *_: Measurement("failed", {}, "it burnt"))
    with pytest.raises(StrategyError, match="level 1: all 21 children failed, the first one: it burnt"):
        driven(tmp_path / "trials.sqlite")


def test_notes_tell_how_levels_went(tmp_path: Path, undisturbed: list[Trial]) -> None:
    events = list[Event]()
    driven(tmp_path / "trials.sqlite", emit=events.append)
    noted: list[dict[str, Any]] = [
        dict(e.values) for e in events if isinstance(e, Noted) and e.name == "level"
    ]
    assert [(note["level"], note["children"]) for note in noted] == [(1, 21), (2, 6), (3, 6)]
    assert noted[0]["rho_before"] is None
    assert all(isinstance(note["rho_after"], float) for note in noted)
    assert set(noted[1]["predicted_after"]) == {str(trial.number) for trial in undisturbed[21:27]}
    assert [e.number for e in events if isinstance(e, Proposed)] == list(range(33))
    done = [i for i, event in enumerate(events) if isinstance(event, Told) and event.trial.number == 20]
    level = [i for i, event in enumerate(events) if isinstance(event, Noted) and event.name == "level"]
    assert done[0] < level[0]
