"""The gate on instruction counts, on stored counts."""

import json
import shutil
from pathlib import Path

import pytest

import instructions
from pnas_fast import _cpu_kernels

COUNTS = {"sep5x5 forward": 100_000, "add backward": 5_000}


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A baseline of this compiler, and a valgrind that counts the same."""
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps({"compiler": "GCC 1", "instructions": COUNTS}))
    monkeypatch.setattr(instructions, "BASELINE", path)
    monkeypatch.setattr(instructions, "compiler", lambda module: "GCC 1")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(_cpu_kernels, "instruction_set", lambda: "avx512")
    monkeypatch.setattr(instructions, "count", lambda: dict(COUNTS))
    return path


def test_the_same_counts_are_green(capsys: pytest.CaptureFixture[str]) -> None:
    assert instructions.main([]) == 0
    assert capsys.readouterr().err == ""


def test_more_instructions_are_red_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "count", lambda: COUNTS | {"sep5x5 forward": 103_000})
    assert instructions.main([]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "bench/instructions.py: worse: sep5x5 forward: 103,000 instructions, baseline 100,000: 3.0% worse, "
        "allowed are 2%"
    ]
    monkeypatch.setattr(instructions, "count", lambda: COUNTS | {"sep5x5 forward": 101_900})
    assert instructions.main([]) == 0


def test_cases_of_one_side_alone_are_red() -> None:
    assert instructions.compare({"a": 1}, {"b": 1}) == [
        "a: in the baseline, but not counted; make bench-baseline",
        "b: has no baseline; make bench-baseline",
    ]


def test_another_compiler_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "compiler", lambda module: "GCC 2")
    monkeypatch.setattr(instructions, "count", lambda: {"sep5x5 forward": 10**9})
    only_allowed_for("compiler")
    said = "bench/instructions.py: not compared: the baseline's compiler is GCC 1, this build's is GCC 2"
    assert capsys.readouterr().err.splitlines() == 5 * [said]
    assert instructions.main(["--update"]) == 0
    assert instructions.main([]) == 0


def only_allowed_for(reason: str) -> None:
    """It is a failure unless it is allowed for that reason, or for any."""
    (other, *_) = [name for name in instructions.REASONS if name != reason]
    for allowed in ([], ["--allow-uncompared", other]):
        assert instructions.main(allowed) == 1
    for allowed in (["--allow-uncompared"], ["--allow-uncompared", reason]):
        assert instructions.main(allowed) == 0
    assert instructions.main(["--allow-uncompared", other, reason]) == 0


def test_without_valgrind_nothing_is_counted(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored.read_text()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    only_allowed_for("valgrind")
    assert instructions.main(["--update"]) == 1
    assert capsys.readouterr().err.splitlines() == 6 * [
        "bench/instructions.py: not compared: there is no valgrind here"
    ]
    assert stored.read_text() == before


def test_without_avx2_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_cpu_kernels, "instruction_set", lambda: "plain")
    only_allowed_for("avx2")
    assert "not compared: this machine has no AVX2" in capsys.readouterr().err


def test_a_slower_kernel_is_red_whatever_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "count", lambda: COUNTS | {"sep5x5 forward": 103_000})
    assert instructions.main(["--allow-uncompared"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"compiler": "GCC 1", "instructions": {"a": "many"}}',
        '{"compiler": "GCC 1", "instructions": {"a": 0}}',
    ],
)
def test_a_malformed_baseline_is_one_line(
    stored: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.write_text(content)
    assert instructions.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(stored) in line


def test_the_compiler_is_read_from_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    assert instructions.compiler(instructions.MODULE) != "an unknown compiler"
    other = tmp_path / "module.so"
    other.write_bytes(b"\0GCC: (Debian 12.2.0-14) 12.2.0\0")
    assert instructions.compiler(other) == "GCC: (Debian 12.2.0-14) 12.2.0"
