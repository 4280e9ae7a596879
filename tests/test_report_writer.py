"""The report that is written in a thread: from the first child on, and not too often."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pnas_fast.protocols import Finished, Measurement, Noted, Proposal, Said, Task
from pnas_fast.report import page
from pnas_fast.space import Cell
from pnas_fast.tracking.report import ReportWriter

CHILD = Finished(
    Task(0, Proposal(Cell.parse("0:sep3x3+1:identity"), 1), 0), Measurement("done", {"accuracy": 0.5})
)


def test_the_first_child_has_a_page_and_leaving_waits_for_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[tuple[Path, bool]] = []
    here = threading.current_thread()
    monkeypatch.setattr(
        page, "write_report", lambda folder: written.append((folder, threading.current_thread() is here))
    )
    with ReportWriter(tmp_path) as report:
        report.on(Said("nothing worth a page"))
        report.on(Noted("begun", {}))
        assert report._last is None
        report.on(CHILD)
        report._wait()
        assert written == [(tmp_path, False)]
        report.on(CHILD)
        assert written == [(tmp_path, False)], "too soon"
    assert written == [(tmp_path, False), (tmp_path, True)]


def test_a_search_that_is_done_before_anybody_looks_has_one_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(page, "write_report", written.append)
    with ReportWriter(tmp_path, at_once=False) as report:
        report.on(CHILD)
        report.on(CHILD)
        assert written == []
    assert written == [tmp_path]


def test_every_note_that_is_kept_is_worth_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[Path] = []
    monkeypatch.setattr(page, "write_report", written.append)
    with ReportWriter(tmp_path, every=0.0) as report:
        for _ in range(3):
            report.on(Noted("level", {}, kept=True))
            report._wait()
    assert written == [tmp_path] * 3


def test_a_slow_page_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_on, written = threading.Event(), list[Path]()

    def slow(folder: Path) -> None:
        go_on.wait(60)
        written.append(folder)

    monkeypatch.setattr(page, "write_report", slow)
    with ReportWriter(tmp_path, every=0.0) as report:
        for _ in range(5):
            report.on(CHILD)
        assert written == []
        go_on.set()
    assert written == [tmp_path] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_search_that_is_stopped_has_its_report(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(page, "write_report", written.append)

    def stop() -> None:
        with ReportWriter(tmp_path) as report:
            report.on(CHILD)
            report._wait()
            report.on(CHILD)
            raise error

    with pytest.raises(error):
        stop()
    assert written == [tmp_path] * 2


def fail(folder: Path) -> None:
    raise OSError("no space left")


def test_a_report_that_could_not_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "write_report", fail)
    with pytest.raises(OSError, match="no space left"), ReportWriter(tmp_path) as report:
        report.on(CHILD)


def test_another_error_is_not_hidden_by_that_of_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "write_report", fail)

    def stop() -> None:
        with ReportWriter(tmp_path) as report:
            report.on(CHILD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
