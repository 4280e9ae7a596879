"""Two processes that train together are one with the whole batch; one that dies ends all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from distributed_steps import normalised, steps
from oracle import FORWARD, GRADIENT, relative_error
from pnas_fast.data import load
from pnas_fast.engine import evaluate
from pnas_fast.kernels import BACKENDS
from pnas_fast.runs.weights import load_child
from pnas_fast.threads import torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.cli import EXAMPLES
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group
from pnas_fast.train.heldout import read_tested
from pnas_fast.train.history import read_history
from test_train import OPTIONS, SEARCH, await_checkpoint, checkpoints
from test_train_heldout import OPTIONS as MADE_UP
from test_train_heldout import write_data

pytestmark = pytest.mark.slow

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
    assert len(set(one["losses"].tolist())) == len(one["losses"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_shares_batch_norm(together: Path, backend: str) -> None:
    one, two = normalised(Group(), "eager"), load_file(together / f"norm-{backend}.safetensors")
    assert one.keys() == two.keys()
    for name, whole in one.items():
        mine = whole[::2] if name == "out" or name.startswith("source") else whole
        assert relative_error(two[name], mine) <= (FORWARD if name == "out" else GRADIENT), name


def test_the_command_of_the_help_trains_the_best_cell_of_a_search_in_two_processes(tmp_path: Path) -> None:
    (line,) = [
        line.split("  ") for line in EXAMPLES.splitlines() if "torchrun" in line and "--search" in line
    ]
    _, _, _, *given = next(part for part in line if part).split()
    assert given[:2] == ["-m", "pnas_fast.train"]
    given[given.index("--search") + 1] = str(SEARCH)
    tiny = f"--device cpu --threads 1 --epochs 1 --train-images 512 --out {tmp_path / 'run'}".split()
    done = subprocess.run(
        [*TORCHRUN, *given, *tiny], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cpu x 2 processes" in done.stdout
    config = TrainConfig.load(tmp_path / "run" / "config.json")
    assert (config.data, config.filters, config.batch) == ("digits", 4, 256)
    assert [record.images for record in read_history(tmp_path / "run")] == [512]


def test_two_processes_test_once_after_each_seed(tmp_path: Path) -> None:
    name, folder = write_data(tmp_path / "made.npz"), tmp_path / "run"
    options = ["--data", name, "--on", "all", "--seeds", "2", "--epochs", "1", "--out", str(folder)]
    command = [*TORCHRUN, "-m", "pnas_fast.train", *MADE_UP, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error") == 2
    assert "2 seeds, mean ± standard deviation: test accuracy" in done.stdout
    for seed in (0, 1):
        known = read_tested(folder / f"seed-{seed}")
        network = load_child(folder / f"seed-{seed}" / "best.safetensors")
        assert known is not None
        assert known.correct == evaluate(network, load(name).joined(seed).tested()).correct


def test_torchrun_takes_no_option_but_one_for_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    names = sorted(set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out.split("examples:")[0])))
    assert len(names) > 20
    for name in names:
        if name != "--run":  # which is --search there
            parsed = get_args_parser().parse_args(["-m", "pnas_fast.train", name, "7"])
            assert parsed.training_script_args == [name, "7"]


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
