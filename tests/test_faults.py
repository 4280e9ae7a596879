"""A search whose children raise, are killed, run out of memory or hang: each is one failed trial.

Faults are put into real workers of a real search from outside: Python imports a ``sitecustomize`` that
lies on its path before anything else, and this one replaces what a worker calls to train a child.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from pnas_fast.runs.store import TrialStore
from pnas_fast.search.result import SearchResult

FAULTS = """
import json, os, signal, sys, time
from pathlib import Path

faults = json.loads(os.environ["FAULTS"])
here = Path(__file__).parent

if sys.orig_argv[1:4] == ["-m", "pnas_fast.executors.fork_server", "pnas_fast.executors.worker"]:
    import torch
    import pnas_fast.engine as training
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
        if fault.startswith("memory"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if fault == "hang":
            time.sleep(1000)
        return build(cell, *others)

    trainer.build_child = build_or_fail
elif "pnas_fast.search" in sys.orig_argv:
    from pnas_fast.executors import pool
    pool.GRACE_SECONDS = 1.0
"""

CELLS = {
    "0:sep3x3+0:sep3x3": "exception",
    "0:max_pool3x3+0:max_pool3x3": "kill",
    "0:sep3x3+0:max_pool3x3": "memory",
    "1:sep3x3+1:sep3x3": "hang",
    "0:sep3x3+1:sep3x3": "memory once",
    "0:sep3x3+1:max_pool3x3": "kill once",
}


def search(folder: Path, blocks: int, faults: dict[str, str]) -> SearchResult:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    options = (
        f"--preset quick --device cpu --blocks {blocks} --beam 3 --operations sep3x3,max_pool3x3 --filters 4 "
        "--epochs 1 --batch 32 --train-images 128 --workers 2 --time-limit 15 --out"
    )
    command = [sys.executable, "-m", "pnas_fast.search", *options.split(), str(folder / "run")]
    environment = os.environ | {"PYTHONPATH": str(folder), "FAULTS": json.dumps(faults)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return SearchResult.load(folder / "run")


def test_every_fault_is_one_failed_trial_and_the_search_finishes(tmp_path: Path) -> None:
    result = search(tmp_path / "faulty", 2, CELLS)
    trials = result.trials
    errors = dict(zip(trials.cell, trials.error, strict=True))
    assert {cell: error for cell, error in errors.items() if error} == {
        "0:sep3x3+0:sep3x3": "ValueError: this cell is cursed",
        "0:max_pool3x3+0:max_pool3x3": "the worker died 2 times (signal 9)",
        "0:sep3x3+0:max_pool3x3": "out of memory: CUDA out of memory. Tried to allocate 9 GiB "
        "(2 times, the last time alone)",
        "1:sep3x3+1:sep3x3": "hung: no result 1 s past the time limit of 15 s",
    }
    assert len(trials) == 10 + 3
    assert len(result.levels) == 2
    assert not (result.folder / "children").exists()
    assert "cursed" in result.report.read_text()
    for cell, tries in {
        "0:sep3x3+0:sep3x3": 1,
        "0:max_pool3x3+0:max_pool3x3": 2,
        "0:sep3x3+0:max_pool3x3": 2,
        "1:sep3x3+1:sep3x3": 1,
        "0:sep3x3+1:sep3x3": 2,
        "0:sep3x3+1:max_pool3x3": 2,
    }.items():
        processes = (tmp_path / "faulty" / cell).read_text().split()
        assert len(set(processes)) == len(processes) == tries, cell
    # Children that were tried again, and those beside the faults, are what they are without faults.
    sound = search(tmp_path / "sound", 1, {}).trials
    accuracies = dict(zip(sound.cell, zip(sound.accuracy, sound.loss, strict=True), strict=True))
    first_level = trials.level == 1
    done = [i for i, error in enumerate(trials.error) if not error and first_level[i]]
    assert len(done) == 6
    for index in done:
        assert (trials.accuracy[index], trials.loss[index]) == accuracies[trials.cell[index]]
    with TrialStore(result.folder / "trials.sqlite") as store:
        assert all(trial.device == "cpu" for trial in store.trials())
        assert all(trial.waiting_seconds is not None for trial in store.trials())
        assert all(level.workers == 2 for level in store.levels())
