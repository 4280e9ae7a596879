"""The report that is written in a thread: in order, and not in silence where it cannot be."""

import threading
from pathlib import Path

import pytest

from pnas_fast.report import page
from pnas_fast.search.writing import ReportWriter


def test_leaving_waits_for_the_last_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[tuple[Path, bool]] = []
    here = threading.current_thread()
    monkeypatch.setattr(
        page, "write_report", lambda folder: written.append((folder, threading.current_thread() is here))
    )
    with ReportWriter(tmp_path) as report:
        for _ in range(3):
            report.write()
    assert written == 3 * [(tmp_path, False)]


def test_a_report_that_could_not_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(page, "write_report", fail)
    with pytest.raises(OSError, match="no space left"), ReportWriter(tmp_path) as report:
        report.write()
    report = ReportWriter(tmp_path)
    report.write()
    with pytest.raises(OSError, match="no space left"):
        report.write()


def test_another_error_is_not_hidden_by_that_of_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(page, "write_report", fail)

    def stop() -> None:
        with ReportWriter(tmp_path) as report:
            report.write()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
