"""How many cores there are: those of the affinity before torch changes it, and of control groups' quotas."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pnas_fast.cgroups import cpu_quota
from pnas_fast.threads import cores, granted


class Machine:
    """Files of /proc/self, and the control groups that they speak of, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.process = folder / "proc"
        self.process.mkdir()
        self.groups = folder / "cgroup"
        self._memberships: list[str] = []
        self._mounts: list[str] = ["22 1 0:5 / /proc rw - proc proc rw"]

    def join(self, controllers: str, path: str, root: str = "/", extra: str = "") -> Path:
        """Be in a group; its folder."""
        number = len(self._memberships) + 1
        self._memberships.append(f"{number}:{controllers}:{path}" if controllers else f"0::{path}")
        name = controllers or "unified"
        mounted = self.groups / name
        kind = "cgroup" if controllers else "cgroup2"
        options = f"rw,{controllers}" if controllers else "rw"
        self._mounts.append(f"3{number} 22 0:3{number} {root} {mounted} rw{extra} - {kind} {kind} {options}")
        (self.process / "cgroup").write_text("\n".join(self._memberships) + "\n")
        (self.process / "mountinfo").write_text("\n".join(self._mounts) + "\n")
        folder = mounted / path.removeprefix(root).lstrip("/")
        folder.mkdir(parents=True)
        return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5), ("junk", None)]
)
def test_a_group_of_the_second_version(machine: Machine, text: str, quota: float | None) -> None:
    folder = machine.join("", "/system.slice/docker-1.scope", extra=" shared:4 master:2")
    (folder / "cpu.max").write_text(text + "\n")
    assert cpu_quota(machine.process) == quota


def test_the_least_of_a_group_and_its_parents_counts(machine: Machine) -> None:
    folder = machine.join("", "/kubepods/pod/container")
    (folder / "cpu.max").write_text("max 100000\n")
    (folder.parent / "cpu.max").write_text("200000 100000\n")
    (folder.parent.parent / "cpu.max").write_text("400000 100000\n")
    assert cpu_quota(machine.process) == 2.0


@pytest.mark.parametrize(("quota", "found"), [("-1", None), ("250000", 2.5)])
def test_a_group_of_the_first_version(machine: Machine, quota: str, found: float | None) -> None:
    machine.join("memory", "/job")
    folder = machine.join("cpu,cpuacct", "/slurm/job_1")
    (folder / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    machine.join("", "/")
    assert cpu_quota(machine.process) == found


def test_a_container_sees_its_group_as_the_top(machine: Machine) -> None:
    folder = machine.join("cpu,cpuacct", "/docker/abc", root="/docker/abc")
    assert folder == machine.groups / "cpu,cpuacct"
    (folder / "cpu.cfs_quota_us").write_text("200000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(machine.process) == 2.0


def test_a_group_outside_of_what_is_mounted_is_looked_for_at_its_top(machine: Machine) -> None:
    machine.join("", "/../other")
    (machine.groups / "unified" / "cpu.max").write_text("100000 100000\n")
    assert cpu_quota(machine.process) == 1.0


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert cores(tmp_path) == len(granted())


@pytest.mark.parametrize(("quota", "count"), [("50000", 1), ("100000", 1), ("9900000", len(granted()))])
def test_a_quota_bounds_the_cores(machine: Machine, quota: str, count: int) -> None:
    folder = machine.join("", "/job")
    (folder / "cpu.max").write_text(f"{quota} 100000\n")
    assert cores(machine.process) == count


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity is known here")
def test_cores_are_those_before_torch_ties_the_process_to_one() -> None:
    script = (
        "import os; before = len(os.sched_getaffinity(0))\n"
        "import sys, pnas_fast.candidates, pnas_fast.threads as threads\n"
        "assert 'torch' not in sys.modules\n"
        "import torch; torch.ones(1000, 1000) @ torch.ones(1000, 1000)\n"
        "assert len(threads.granted()) == before, (threads.granted(), before)\n"
        "assert pnas_fast.candidates._THREADS == threads.cores() <= before\n"
        "os.sched_setaffinity(0, [min(threads.granted())])\n"
        "assert len(threads.granted()) == before\n"
    )
    environment = os.environ | {"OMP_PROC_BIND": "true"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="no affinity is known here")
def test_where_torch_was_there_first_its_library_knows() -> None:
    script = (
        "import os; before = os.sched_getaffinity(0)\n"
        "import torch, pnas_fast.threads as threads\n"
        "assert threads.granted() == before, (threads.granted(), before)\n"
    )
    environment = os.environ | {"OMP_PROC_BIND": "true"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity is known here")
def test_the_candidate_engine_has_no_more_threads_than_cores() -> None:
    core = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, [{core}]); import pnas_fast.candidates as found; "
        "assert found._THREADS == 1, found._THREADS"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
