"""Two processes that train together are one with the whole batch; one that dies ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from distributed_steps import EVERY_BACKEND, normalised, steps
from oracle import FORWARD, GRADIENT, relative_error
from pnas_fast.threads import torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.group import Group
from pnas_fast.train.history import read_history
from test_train import OPTIONS, await_checkpoint, checkpoints

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of a few steps."""
    folder = tmp_path_factory.mktemp("together")
    script = Path(__file__).with_name("distributed_steps.py")
    subprocess.run([*TORCHRUN, script, folder], check=True, capture_output=True, timeout=200)
    return folder


@pytest.mark.parametrize(("backend", "largest"), [("eager", 1e-11), ("cpu", 1e-4)])
def test_two_processes_take_the_steps_of_one_with_the_whole_batch(
    together: Path, backend: str, largest: float
) -> None:
    """With the auxiliary classifier, drop-path, cutout, clipping and the average of weights."""
    with torch_threads(1):
        one = steps(Group(), backend)
    two = load_file(together / f"{backend}.safetensors")
    assert one.keys() == two.keys()
    assert any("running_var" in name for name in one)
    errors = {name: relative_error(two[name], value) for name, value in one.items()}
    assert max(errors.values()) < largest, max(errors, key=lambda name: errors[name])
    assert len(one["losses"].unique()) == len(one["losses"])


@pytest.mark.parametrize("backend", EVERY_BACKEND)
def test_every_backend_shares_batch_norm(together: Path, backend: str) -> None:
    one, two = normalised(Group(), "eager"), load_file(together / f"norm-{backend}.safetensors")
    assert one.keys() == two.keys()
    for name, whole in one.items():
        mine = whole[::2] if name == "out" or name.startswith("source") else whole
        assert relative_error(two[name], mine) <= (FORWARD if name == "out" else GRADIENT), name


def test_a_process_that_is_killed_ends_all_and_another_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [*TORCHRUN, "-m", "pnas_fast.train", *OPTIONS, "--epochs", "5", "--out", str(folder)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    await_checkpoint(folder)
    children = [
        int(pid) for pid in Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
    ]
    workers = [pid for pid in children if b"pnas_fast.train" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    runner.communicate(timeout=100)
    assert runner.returncode != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert checkpoints(folder)[-1].name < "000005"
    assert main(["--out", str(folder)]) == 0
    assert [record.epoch for record in read_history(folder)] == list(range(1, 6))
