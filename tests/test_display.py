"""What a search says while it scores candidates, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from pnas_fast.runs.store import Level
from pnas_fast.search import display as displays
from pnas_fast.search.display import LiveDisplay, PlainDisplay


def test_a_log_is_told_of_scoring_only_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    display = PlainDisplay(Console(file=text))
    display.candidates_scored(3, 5, 260_000, 2_000, 9_000)
    assert text.getvalue() == ""
    monkeypatch.setattr(displays, "PLAIN_SECONDS", -1.0)
    display.candidates_scored(3, 5, 1_260_000, 4_000, 9_000)
    assert text.getvalue() == "level 3/5: 4,000/9,000 parents · 1,260,000 candidates scored\n"


def test_a_terminal_shows_scoring_between_two_levels() -> None:
    text = io.StringIO()
    display = LiveDisplay(Console(file=text, force_terminal=True, width=100))
    display.level_started(2, 3, 31_620, 24, 24)
    assert display._progress.tasks[0].total == 24
    display.level_finished(Level(2, 31_620, None, None, 1.0), 0.9)
    assert display._progress.tasks == []
    for done, candidates in ((222, 260_000), (256, 300_000)):
        display.candidates_scored(3, 3, candidates, done, 256)
        (task,) = display._progress.tasks
        assert (task.completed, task.total) == (done, 256)
        assert task.fields == {"level": "3/3", "status": f"{candidates:,} candidates scored"}
    display.level_started(3, 3, 300_000, 24, 0)
    (task,) = display._progress.tasks
    assert (task.completed, task.total) == (0, 24)
    display.close()
    assert "level 3/3: 300,000 candidates, training the best 24" in text.getvalue()
