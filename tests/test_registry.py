"""Backends by name: what importing them does not do, and what each needs."""

import subprocess
import sys

import pytest
import torch

from pnas_fast.kernels import BACKENDS, get_backend

WITHOUT = """
import sys
sys.modules["pnas_fast._cpu_kernels"] = None  # what an import of it meets where it was never built
"""

IMPORTING = """
import atexit, os, signal, sys
import torch

def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    threads = torch.get_num_threads(), torch.get_num_interop_threads()
    return threads, dict(os.environ), atexit._ncallbacks(), handlers

before = state()
import pnas_fast.kernels
from pnas_fast.kernels import BACKENDS, get_backend
get_backend("eager")
assert BACKENDS == ("eager", "cpu", "triton")
assert state() == before
print([name for name in sys.modules if name in ("pnas_fast._cpu_kernels", "triton", "threadpoolctl")])
"""

EAGER = """
import torch
from pnas_fast.data import TrainingBatches, load
from pnas_fast.engine import Stepper, TrainingLoop, TrainingSettings, replayed
from pnas_fast.kernels import BackendError, get_backend, resolve_backend
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell

assert resolve_backend("auto", "cpu") == "eager"
network = ChildNetwork(Cell.parse("0:sep3x3+1:max_pool3x3"), 1, 2, 10, (1, 8, 8), "eager")
settings = TrainingSettings(epochs=1, batch=20, backend="eager", device="cpu", precision="fp32")
loop = TrainingLoop(network, Stepper(network, settings), TrainingBatches(load("digits").subset(40), 20, 3), 1)
loop.begin(0)
step = replayed(loop.step, torch.device("cpu"), "eager")
step()
step()
assert loop.loss() > 0
for refused in (lambda: get_backend("cpu"), lambda: resolve_backend("cpu", "cpu")):
    try:
        refused()
    except BackendError as error:
        print(error)
"""


def output(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_changes_nothing_and_loads_no_backend() -> None:
    assert output(IMPORTING).strip() == "[]"


def test_eager_trains_where_nothing_was_compiled_and_cpu_says_how_to_build() -> None:
    first, second = output(WITHOUT + EAGER).splitlines()
    assert first == second
    assert first.startswith("backend cpu: the compiled module pnas_fast._cpu_kernels is not usable (")
    assert first.endswith("; build it with: pip install -e .")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_name_is_always_the_same_backend(name: str) -> None:
    backend = get_backend(name)
    assert backend is get_backend(name)
    assert backend.name == name


def test_backends_are_asked_what_they_are_like() -> None:
    full, half, quarter = torch.float32, torch.bfloat16, torch.float16
    assert [name for name in BACKENDS if get_backend(name).warms] == ["triton"]
    assert [name for name in BACKENDS if get_backend(name).records] == ["cpu"]
    assert get_backend("cpu").dtypes == (full,)
    assert get_backend("triton").dtypes == (full, half, quarter)
    assert {full, half, quarter} < set(get_backend("eager").dtypes)


@pytest.mark.parametrize("name", BACKENDS)
def test_arranging_changes_no_weight(name: str) -> None:
    weight = torch.randn(5, 1, 3, 3)
    arranged = get_backend(name).arrange(weight)
    assert torch.equal(arranged, weight)
    assert (arranged.stride() == (1, 5, 15, 5)) == (name == "triton")
