"""Files that are whole or not there, whoever is killed while writing them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pnas_fast.files import replacing, scratch, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from pnas_fast.files import replacing, scratch
path = Path(sys.argv[1])
with scratch(path) as folder, replacing(path) as temporary:
    (folder / "large").write_text("half")
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(path: Path) -> list[Path]:
    """What a process leaves that is killed while it writes a file."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = sorted(set(path.parent.iterdir()) - before)
    assert len(left) == 2
    return left


def test_what_killed_processes_left_of_a_file_is_removed(tmp_path: Path) -> None:
    mine, other = tmp_path / "a[1].onnx", tmp_path / "b.onnx"
    left = leave(mine)
    kept = leave(other)
    write_text(mine, "whole")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    with scratch(other):
        assert not any(path.exists() for path in kept)
    assert list(tmp_path.iterdir()) == [mine]


def test_what_living_processes_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    living = tmp_path / f".a.{os.getppid()}.tmp"
    names = [".a.notes.tmp", ".a..tmp", ".a.1.bak", ".ab.1.tmp", "a.1.tmp", ".a.²" + ".tmp"]
    for name in (living.name, *names):
        (tmp_path / name).touch()
    with replacing(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"
    assert living.exists()
    assert all((tmp_path / name).exists() for name in names)


def interrupted(path: Path) -> None:
    with scratch(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "b").touch()
        raise KeyboardInterrupt


def test_a_folder_for_the_making_of_a_file_is_gone_afterwards(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
