"""The report that is written in a thread: in order, not too often, and not in silence where it cannot be."""

import threading
from pathlib import Path

import pytest

from pnas_fast.report import page
from pnas_fast.search import writing
from pnas_fast.search.writing import ReportWriter


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never too soon for a report."""
    monkeypatch.setattr(writing, "EVERY_SECONDS", 0.0)


@pytest.mark.usefixtures("always")
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


def test_what_is_too_soon_is_written_on_leaving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, written = [100.0], list[float]()
    monkeypatch.setattr(writing.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(page, "write_report", lambda folder: written.append(clock[-1]))
    with ReportWriter(tmp_path) as report:
        for seconds in (110.0, 161.0, 170.0, 222.0):
            clock.append(seconds)
            report.write()
            report._wait()
        assert written == [161.0, 222.0]
    assert written == [161.0, 222.0]
    with ReportWriter(tmp_path) as report:
        report.write()
        assert written == [161.0, 222.0]
    assert written == [161.0, 222.0, 222.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_search_that_is_stopped_has_its_report(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(page, "write_report", written.append)

    def stop() -> None:
        with ReportWriter(tmp_path) as report:
            report.write()
            raise error

    with pytest.raises(error):
        stop()
    assert written == [tmp_path]


@pytest.mark.usefixtures("always")
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


@pytest.mark.usefixtures("always")
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
