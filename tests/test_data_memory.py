"""How much memory there is: the machine's, or what control groups leave of it."""

from pathlib import Path

import pytest

from pnas_fast.cgroups import memory_limit
from pnas_fast.data import DataError
from pnas_fast.data import memory as memory_module
from pnas_fast.data.memory import available_memory, check_memory
from test_threads import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_least_of_a_group_and_its_parents_counts_without_what_caches_files(machine: Machine) -> None:
    folder = machine.join("", "/pod/container")
    for place, limit in ((folder, "max"), (folder.parent, "1000")):
        (place / "memory.max").write_text(f"{limit}\n")
        (place / "memory.current").write_text("700\n")
        (place / "memory.stat").write_text("anon 400\ninactive_file 250\n")
    assert memory_limit(machine.process) == 1000 - 700 + 250


def test_a_group_of_the_first_version(machine: Machine) -> None:
    machine.join("cpu", "/job")
    folder = machine.join("memory", "/job")
    (folder / "memory.limit_in_bytes").write_text("1000\n")
    (folder / "memory.usage_in_bytes").write_text("1200\n")
    (folder / "memory.stat").write_text("cache 9\ntotal_inactive_file 100\n")
    assert memory_limit(machine.process) == 0


@pytest.mark.parametrize("limit", ["max", "junk", ""])
def test_no_limit_is_none(machine: Machine, limit: str) -> None:
    (machine.join("", "/job") / "memory.max").write_text(limit)
    assert memory_limit(machine.process) is None


def test_the_machine_s_memory_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       3 kB\n")
    monkeypatch.setattr(memory_module, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory_module, "memory_limit", lambda: 5000)
    assert available_memory() == 3 * 1024
    monkeypatch.setattr(memory_module, "memory_limit", lambda: 2000)
    assert available_memory() == 2000
    check_memory("x", 2000)
    with pytest.raises(DataError, match=r"^x: images take 0\.0 MiB of memory, 0\.0 MiB are free"):
        check_memory("x", 2001)
    monkeypatch.setattr(memory_module, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory_module, "memory_limit", lambda: None)
    assert available_memory() is None
    check_memory("x", 2**80)
