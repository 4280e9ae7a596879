"""A search whose children raise, run out of memory or hang, and one whose machine is at fault.

The first are one failed trial each. The others stop the search with one line, and when the fault is mended
the same search goes on to the same end. Faults are put into real workers of a real search from outside:
Python imports a ``sitecustomize`` that lies on its path before anything else, and this one replaces what a
worker calls to train a child.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pnas_fast.protocols import Trial
from pnas_fast.search.result import SearchResult

FAULTS = """
import json, os, sys
from pathlib import Path

faults = json.loads(os.environ["FAULTS"])
here = Path(__file__).parent

def in_worker():
    import errno, signal, threading
    import torch
    from pnas_fast.evaluation import child as trainer

    build = trainer.build_child

    def build_or_fail(cell, *others):
        fault = faults.get(str(cell), "")
        seen = here / str(cell)
        if fault.endswith(" once") and seen.exists():
            fault = ""
        with seen.open("a") as file:
            file.write(f"{os.getpid()}\\n")
        if fault.startswith("exception"):
            raise ValueError("this cell is cursed")
        if fault.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault.startswith("disk"):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/home/you/.cache")
        if fault.startswith("memory"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if fault.startswith("hang"):
            threading.Event().wait()
        return build(cell, *others)

    trainer.build_child = build_or_fail

if any("pnas_fast.executors.fork_server" in word for word in sys.orig_argv):
    import importlib.abc, importlib.util

    class Late(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == "pnas_fast.executors.worker":
                sys.meta_path.remove(self)
                in_worker()

    sys.meta_path.insert(0, Late())
elif "pnas_fast.search" in sys.orig_argv:
    from pnas_fast.executors import local
    local.LocalExecutor.__init__.__kwdefaults__["grace"] = 1.0
"""

CELLS = {
    "0:sep3x3+0:sep3x3": "exception",
    "0:max_pool3x3+0:max_pool3x3": "kill once",
    "0:sep3x3+0:max_pool3x3": "memory",
    "1:sep3x3+1:sep3x3": "hang",
    "0:sep3x3+1:sep3x3": "memory once",
}
OPTIONS = (
    "--preset quick --device cpu --beam 3 --operations sep3x3,max_pool3x3 --filters 4 --epochs 1 --batch 32 "
    "--train-images 128 --workers 2 --time-limit 15"
)


def search(
    folder: Path, blocks: int, faults: dict[str, str], prepare: Callable[[], None] | None = None
) -> tuple[int, str]:
    """Run the command; its exit status and what it wrote to standard error."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(FAULTS)
    options = [*OPTIONS.split(), "--blocks", str(blocks), "--out", str(folder / "run")]
    command = [sys.executable, "-m", "pnas_fast.search", *options]
    environment = os.environ | {"PYTHONPATH": str(folder), "FAULTS": json.dumps(faults)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=prepare
    )
    return done.returncode, done.stderr


def essence(trial: Trial) -> tuple[Any, ...]:
    """What must not depend on how a search went."""
    found = trial.measurement
    values = {name: value for name, value in found.values.items() if "second" not in name}
    return trial.number, trial.proposal, replace(found, values=values)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    folder = tmp_path_factory.mktemp("sound")
    assert search(folder, 1, {}) == (0, "")
    return [essence(trial) for trial in SearchResult.load(folder / "run").record.trials]


def test_what_a_cell_does_is_one_failed_trial_and_the_search_finishes(
    tmp_path: Path, sound: list[tuple[Any, ...]]
) -> None:
    assert search(tmp_path, 2, CELLS) == (0, "")
    result = SearchResult.load(tmp_path / "run")
    trials = result.record.trials
    errors = {str(trial.cell): trial.measurement.error for trial in trials}
    assert {cell: error for cell, error in errors.items() if error} == {
        "0:sep3x3+0:sep3x3": "ValueError: this cell is cursed",
        "0:sep3x3+0:max_pool3x3": "out of memory: CUDA out of memory. Tried to allocate 9 GiB "
        "(2 times, the last time alone)",
        "1:sep3x3+1:sep3x3": "hung: no result 1 s past the time limit of 15 s",
    }
    assert len(trials) == 10 + 3
    assert not (result.folder / "children").exists()
    for cell, tries in {
        "0:sep3x3+0:sep3x3": 1,
        "0:max_pool3x3+0:max_pool3x3": 2,
        "0:sep3x3+0:max_pool3x3": 2,
        "1:sep3x3+1:sep3x3": 1,
        "0:sep3x3+1:sep3x3": 2,
    }.items():
        processes = (tmp_path / cell).read_text().split()
        assert len(set(processes)) == len(processes) == tries, cell
    # Children that were tried again, and those beside the faults, are what they are without faults.
    done = [essence(trial) for trial in trials if trial.done and len(trial.cell) == 1]
    assert len(done) == 7
    assert all(trial in sound for trial in done)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "kill",
            r"a worker on cpu was killed \(SIGKILL\), perhaps by the system for want of memory .* child 2 ",
        ),
        ("crash", r"a worker on cpu crashed \(SIGSEGV\) in compiled code.* with child 2 .* 2 times"),
        ("disk", r"a worker on cpu: Disk quota exceeded: /home/you/\.cache \(free some of your quota, then"),
    ],
)
def test_what_the_machine_does_stops_the_search_and_is_no_trial(
    tmp_path: Path, sound: list[tuple[Any, ...]], fault: str, message: str
) -> None:
    status, errors = search(tmp_path, 1, {"0:sep3x3+0:max_pool3x3": fault})
    assert status == 1
    assert re.fullmatch(rf"python -m pnas_fast.search: error: .*{message}.*\n", errors), errors
    assert search(tmp_path, 1, {}) == (0, "")
    assert [essence(trial) for trial in SearchResult.load(tmp_path / "run").record.trials] == sound


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit files otherwise")
def test_a_disk_without_room_for_weights_is_not_the_cells_fault(
    tmp_path: Path, sound: list[tuple[Any, ...]]
) -> None:
    def limit() -> None:
        import resource

        # The search's own files grow to more than the weights: only workers, which are told of it, stop.
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    status, errors = search(tmp_path, 1, {}, limit)
    assert status != 0
    assert "Traceback" not in errors
    assert errors.count("\n") == 1
    assert search(tmp_path, 1, {}) == (0, "")
    assert [essence(trial) for trial in SearchResult.load(tmp_path / "run").record.trials] == sound
