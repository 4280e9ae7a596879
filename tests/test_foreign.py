"""Readers of foreign files: refusals in one line, whatever is raised, and texts fit for a terminal."""

import logging
import warnings
from pathlib import Path

import pytest

from pnas_fast.foreign import LONGEST_REASON, printable, reading


class RefusalError(ValueError):
    pass


class StrangeError(Exception):
    """As libraries have them, of no common class."""


@pytest.mark.parametrize(
    "error",
    [
        StrangeError("odd"),
        IndexError("odd"),
        AssertionError("odd"),
        RecursionError("odd"),
        MemoryError("odd"),
    ],
)
def test_any_exception_of_a_reader_is_a_refusal(error: Exception, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with (
        pytest.raises(RefusalError, match=r"a: cannot be read as b \(odd\)$") as caught,
        reading(tmp_path / "a", RefusalError, "cannot be read as b"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_a_refusal_passes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(RefusalError, match=r"^mine$"), reading(tmp_path / "a", RefusalError, "x"):
        raise RefusalError("mine")


def test_what_stops_the_program_is_no_refusal(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(KeyboardInterrupt), reading(tmp_path / "a", RefusalError, "x"):
        raise KeyboardInterrupt


def test_reasons_are_short_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for error, wanted in ((StrangeError("two\nlines"), "(two lines)"), (StrangeError(), "(StrangeError)")):
        with pytest.raises(RefusalError) as caught, reading(tmp_path / "a", RefusalError, "x"):
            raise error
        assert str(caught.value).endswith(wanted)
    with pytest.raises(RefusalError) as caught, reading(tmp_path / "a", RefusalError, "x"):
        raise StrangeError("long " * 1000)
    assert len(str(caught.value)) < len(str(tmp_path)) + LONGEST_REASON + 20


def test_missing_files_and_folders_are_said_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(RefusalError, match=r"none: x \(No such file or directory\)"),
        reading(tmp_path / "none", RefusalError, "x"),
    ):
        pytest.fail("it was read")
    with (
        pytest.raises(RefusalError, match=r"it is a folder, expected a regular file"),
        reading(tmp_path, RefusalError, "x"),
    ):
        pytest.fail("it was read")


def test_warnings_and_logs_of_a_reader_are_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").touch()
    with reading(tmp_path / "a", RefusalError, "x"):
        warnings.warn("not seen", stacklevel=1)
        logging.getLogger("reader").critical("not seen")
    assert logging.root.manager.disable == logging.NOTSET
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fotos [2024] :smile: für 猫\u200d", "fotos [2024] :smile: für 猫\u200d"),
        ("a\x1b[2Jb\nc\td", r"a\x1b[2Jb\nc\td"),
        (b"caf\xe9".decode(errors="surrogateescape"), r"caf\udce9"),
        ("a\u2028b", r"a\u2028b"),
        (Path("a/b"), "a/b"),
    ],
)
def test_texts_are_shown_as_they_are_but_for_what_acts_on_a_terminal(text: object, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode()
