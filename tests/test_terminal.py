"""What a search says, on a terminal and in a log."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from pnas_fast.protocols import (
    Event,
    Finished,
    Measurement,
    Noted,
    Progressed,
    Proposal,
    Proposed,
    Said,
    Started,
    Task,
    Told,
    Trial,
)  # fmt: skip
from pnas_fast.space import Cell
from pnas_fast.tracking import terminal
from pnas_fast.tracking.tally import Tally
from pnas_fast.tracking.terminal import Lines, Live

CELL = Cell.parse("0:sep3x3+1:identity")
LEVEL: dict[str, Any] = {"level": 2, "levels": 3, "candidates": 31_620, "children": 24}
BEGUN = Noted("begun", LEVEL)
RESULT = Noted("level", {**LEVEL, "rho_before": -0.03, "rho_after": 0.5, "surrogate_seconds": 1.0}, kept=True)


def task(number: int) -> Task:
    return Task(number, Proposal(CELL, 1), 0)


def child(number: int, accuracy: float | None, loss: float = 1.0) -> list[Event]:
    """What happens while a child is trained; without an accuracy it fails."""
    values = {} if accuracy is None else {"accuracy": accuracy, "validation_loss": loss}
    measured = Measurement("failed", {}, "diverged") if accuracy is None else Measurement("done", values)
    return [Started(task(number)), Progressed(task(number), 64), Finished(task(number), measured)]


def lines(events: list[Event], strategy: str = "progressive") -> str:
    text = io.StringIO()
    display = Lines(Console(file=text, width=200), strategy, 184)
    for event in events:
        display.on(event)
    return text.getvalue()


def test_a_log_has_a_line_at_each_turn() -> None:
    assert lines([Said("[b]hello :smile:"), BEGUN, *child(0, 0.5), *child(1, 0.75), RESULT]) == (
        "[b]hello :smile:\n"
        "level 2/3: 31,620 candidates, training the best 24\n"
        "level 2/3 done: best so far 75.00%, predicted with ρ = -0.03 (rank correlation: 1 is a perfect "
        "order, 0 is chance)\n"
    )


def test_a_failure_is_said_with_its_reason() -> None:
    assert lines(child(7, None)) == f"child 7 failed: diverged ({CELL})\n"
    assert lines([BEGUN, *child(7, None), RESULT]).endswith("0 is chance), 1 children failed\n")


def test_a_log_is_told_of_scoring_only_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = Noted("scored", {"level": 3, "candidates": 1_260_000, "done": 4_000, "of": 9_000})
    assert lines([scored]) == ""
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", -1.0)
    assert lines([scored]) == "level 3: 4,000/9,000 parents · 1,260,000 candidates scored\n"


def test_a_replayed_trial_counts_once_and_one_trained_now_too() -> None:
    tally = Tally(10)
    trial = Trial(0, Proposal(CELL, 1), Measurement("done", {"accuracy": 0.5}))
    for event in (Told(trial, replayed=True), *child(1, 0.5), Told(trial, replayed=False), *child(2, None)):
        tally.on(event)
    assert (tally.done, tally.finished, tally.trained, tally.failed, tally.running) == (3, 3, 2, 1, 0)
    assert tally.best is not None
    assert tally.best.number == 1, "of equal accuracies one with a validation loss is before one without"


def test_ties_in_accuracy_are_broken_by_the_validation_loss() -> None:
    tally = Tally(10)
    for event in (*child(0, 0.5, 2.0), *child(1, 0.5, 1.0), *child(2, 0.5, 1.0), *child(3, 0.4, 0.1)):
        tally.on(event)
    assert tally.best is not None
    assert tally.best.number == 1


def test_the_time_left_is_first_and_stays_on_a_narrow_terminal() -> None:
    text = io.StringIO()
    display = Live(Console(file=text, force_terminal=True, width=80), "progressive", 184)
    for event in (BEGUN, *child(0, None), *child(1, 0.98611), Started(task(2)), Started(task(3))):
        display.on(event)
    display._progress.refresh()
    shown = text.getvalue()
    display.close()
    last = shown[shown.rindex("level 2/3") :]
    assert " left" in last
    assert "best 98.61%" in last


def test_a_terminal_shows_scoring_between_two_levels() -> None:
    display = Live(Console(file=io.StringIO(), force_terminal=True, width=100), "progressive", 184)
    display.on(BEGUN)
    display.on(Proposed(0, Proposal(CELL, 1), known=False))
    (bar,) = display._progress.tasks
    assert (bar.fields["title"], bar.total) == ("level 2/3", 24)
    display.on(RESULT)
    assert display._progress.tasks == []
    for done, candidates in ((222, 260_000), (256, 300_000)):
        display.on(Noted("scored", {"level": 3, "candidates": candidates, "done": done, "of": 256}))
        (bar,) = display._progress.tasks
        assert (bar.completed, bar.total) == (done, 256)
        assert bar.fields == {"title": "level 3", "status": f"{candidates:,} candidates scored"}
    display.on(Noted("begun", {**LEVEL, "level": 3}))
    assert display._progress.tasks == []
    display.close()


def test_a_strategy_without_levels_has_one_bar() -> None:
    display = Live(Console(file=io.StringIO(), force_terminal=True, width=100), "random", 50)
    for event in child(0, 0.5):
        display.on(event)
    (bar,) = display._progress.tasks
    assert (bar.fields["title"], bar.completed, bar.total) == ("random", 1, 50)
    display.close()
