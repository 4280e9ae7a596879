"""What people are told of a machine's faults: what happened, and what to mend, in one line."""

import errno
import os
import signal
from pathlib import Path

import pytest

from pnas_fast.executors import faults


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_the_system_is_one_line_with_its_file(number: int) -> None:
    line = faults.of_os(OSError(number, os.strerror(number), "/a/file"))
    assert line.startswith(f"{os.strerror(number)}: /a/file (")
    assert line.endswith("then run the same again, nothing finished is lost)")
    assert "\n" not in line


def test_an_error_without_a_number_says_what_it_says() -> None:
    assert faults.of_os(OSError("the cache is locked")).startswith("the cache is locked (")
    assert faults.of_os(TimeoutError()).startswith("TimeoutError (")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "ended with exit status 3"),
        (-signal.SIGKILL, "was killed (SIGKILL), perhaps by the system for want of memory"),
        (-signal.SIGSEGV, "crashed (SIGSEGV) in compiled code"),
        (-signal.SIGBUS, "was killed (SIGBUS): a file that it reads was cut"),
        (-signal.SIGTERM, "was ended by SIGTERM"),
        (-250, "was ended by signal 250"),
    ],
)
def test_how_a_process_ended(code: int, words: str) -> None:
    assert faults.of_end(code).startswith(words)


def test_last_words_are_those_since_the_run_began(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert faults.last_line(log) == ""
    log.write_text("of an earlier run\n")
    begin = log.stat().st_size
    assert faults.last_line(log, begin) == ""
    log.write_bytes(log.read_bytes() + b"Traceback\n  \xff here\nImportError: no queue\n\n")
    assert faults.last_line(log, begin) == " (ImportError: no queue)"
