"""Warming Triton's cache: the list is whole, and what is compiled ahead is what a launch looks for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import triton

from pnas_fast.kernel_tools import warm, warmed
from pnas_fast.space import OPERATIONS

# In a process of its own, for Triton's interpreter serves the tests. The driver is a stand-in for a card's:
# Triton's own launching code then says under which name it looks for a kernel.
SAME_NAMES = """
import sys, torch
import triton.compiler.compiler as compiler
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from pnas_fast.kernel_tools.cost import fused_launches
from pnas_fast.kernels.triton.aot import variant_of
from pnas_fast.kernels.triton.launch import Pointer
from pnas_fast.space import Cell

class Driver:
    get_current_target = lambda self: GPUTarget("cuda", 90, 32)
    get_current_device = lambda self: 0
    get_current_stream = lambda self, device: 0

class Array:
    def __init__(self, pointer):
        self.dtype, self.address = pointer.dtype, 0 if pointer.aligned else 8
    data_ptr = lambda self: self.address
    ptr_range = lambda self: 0

def as_launched(value):
    if isinstance(value, tuple):
        return tuple(map(as_launched, value))
    return Array(value) if isinstance(value, Pointer) else value

class Named(Exception):
    pass

def name(hash):
    raise Named(hash)

def asked(call):
    try:
        call()
    except Named as found:
        return found.args[0]

driver.set_active(Driver())
compiler.get_cache_manager = name
cell = Cell.parse("0:sep3x3+1:max_pool3x3,2:conv1x7_7x1+0:dil_conv3x3")
names = set()
for launch in fused_launches(cell, 24, 8, torch.bfloat16)[0]:
    given = [as_launched(launch.arguments[name]) for name in launch.kernel.arg_names]
    ahead = asked(lambda: variant_of(launch).build(90))
    assert ahead == asked(lambda: launch.kernel.warmup(*given, grid=(1,), **launch.options)), launch
    names.add(ahead)
assert len(names) > 40, names
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *command], env=outside | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_launch_looks_for_the_name_that_compiling_ahead_gives() -> None:
    done = run("-c", SAME_NAMES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("order", ["dense separable", "separable dense"])
def test_a_kernel_has_the_same_name_whatever_was_launched_before(order: str) -> None:
    """Triton's own hashes depend on it: they leave out what callees without a hash use."""
    program = """
import sys
from pnas_fast.kernels.triton.dense import dense_kernel
from pnas_fast.kernels.triton.cache_keys import settle_name
from pnas_fast.kernels.triton.separable import separable_kernel
kernels = {"dense": dense_kernel, "separable": separable_kernel}
for name in sys.argv[1:]:
    settle_name(kernels[name])
print(dense_kernel.cache_key, separable_kernel.cache_key)
"""
    alone = [run("-c", program, name).stdout.split() for name in ("dense", "separable")]
    assert run("-c", program, *order.split()).stdout.split() == [alone[0][0], alone[1][1]]


@pytest.mark.slow
def test_no_child_asks_for_a_kernel_that_is_not_listed() -> None:
    program = """
import random, torch
from pnas_fast.kernel_tools import warm
from pnas_fast.kernels.triton.aot import variant_from
from pnas_fast.search.plan import random_cell
children = warm.Children(2, 24, (3, 32, 32), torch.bfloat16, 2, ("avg_pool3x3", "dil_conv3x3"))
steps = []
variants = list(warm.list_variants(children, 90, lambda: steps.append(1)))
assert len(steps) == len(children.cells())
listed = {variant.key() for variant in variants}
assert len(listed) == len(variants)
assert {variant_from(variant.values()).key() for variant in variants} == listed
generator = random.Random(0)
for blocks in (1, 1, 1, 2, 2, 2, 2, 2):
    cell = random_cell(blocks, children.operations, generator)
    assert {variant.key() for variant in children.variants(cell, 90)} <= listed, cell
others = {variant.key() for variant in children._replace(dtype=torch.float32).variants(cell, 90)}
assert not others & listed
"""
    done = run("-c", program)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_kernels_are_compiled_once_and_broken_ones_and_dying_compilers_are_told(tmp_path: Path) -> None:
    program = """
import sys, torch
from pnas_fast.kernel_tools import warm
children = warm.Children(1, 8, (1, 8, 8), torch.float16, 1, ("max_pool3x3",))
variants = [v for v in warm.list_variants(children, 90) if v.kernel.__name__ == "add_kernel"][:2]
assert len(variants) == 2
broken = variants[0]._replace(constants={**variants[0].constants, "C": None})
print(*warm.compile_all([*variants, broken], 90, 2)[:2])
outcome = warm.compile_all([*variants, broken], 90, 1)
print(*outcome[:2], len(outcome.errors), outcome.errors[0].startswith("add fp16 "))
import threading
begun = threading.Event()
def listed():
    yield variants[0]
    assert begun.wait(60), "nothing is compiled before all are listed"
    yield variants[1]
print(*warm.compile_all(listed(), 90, 1, begun.set)[:2])
warm.sys.executable = "/bin/false"
print(warm.compile_all(variants[:1], 90, 1).errors[0].partition(": ")[2])
threading.excepthook = lambda _: None
warm.sys.executable = "/nowhere"
print(warm.compile_all(variants, 90, 1).errors[1].partition(": ")[2])
"""
    done = run("-c", program, TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.splitlines() == [
        "2 0",
        "0 2 1 True",
        "0 2",
        "the compiling process died (exit status 1)",
        "the compiling processes died",
    ], done.stderr
    assert list(tmp_path.glob("*/*.cubin"))


def test_what_was_compiled_is_not_listed_again_unless_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed: list[warm.Children] = []
    outcomes = [warm.Outcome(0, 0, ["one: does not compile"]), *[warm.Outcome(1, 0, [])] * 3]
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "cache"))

    def list_variants(children: warm.Children, *_: Any) -> list[Any]:
        listed.append(children)
        return []

    monkeypatch.setattr(warm, "list_variants", list_variants)
    monkeypatch.setattr(warm, "compile_all", lambda variants, *_: [*variants, outcomes.pop(0)][-1])
    children = warm.Children(2, 24, (3, 32, 32), torch.bfloat16, 5, OPERATIONS)
    for _ in range(3):
        warm._warm(children, 90, 1, "bfloat16")
    assert listed == [children] * 2  # again after the error, then no more
    assert capsys.readouterr().out.endswith("sm_90 in bfloat16: all were compiled before\n")
    warm._warm(children, 80, 1, "bfloat16")
    warm._warm(children._replace(filters=48), 90, 1, "bfloat16")
    assert len(listed) == 4
    monkeypatch.setattr(warmed, "_sources", lambda: "others")
    assert not warmed.mark_of(children, 90).exists()


def test_the_mark_holds_the_sources_of_kernels_and_networks() -> None:
    sources = warmed._sources()
    for name in ("separable_backward.py", "lazy.py", "cell.py", "warm.py"):
        assert f"{name} " in sources


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--arch hopper", "--arch hopper: allowed is sm_NN, say sm_90"),
        ("--arch sm_12", "--arch sm_12: allowed is sm_NN, say sm_90, from sm_80"),
        ("--image 32x32", "argument --image: '32x32', allowed is HxWxC, say 32x32x3"),
        ("--image 0x8x3", "argument --image: '0x8x3'"),
        ("--filters 0", "argument --filters: '0', allowed is a whole number from 1 to"),
        ("--operations conv3x3 --arch sm_90", "unknown operation 'conv3x3'"),
        ("", "torch sees no CUDA GPU here; name the one that kernels are for, say --arch sm_90"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(warm, "INTERPRETED", False)
    try:
        status = warm.main(line.split())
    except SystemExit as stop:
        status = int(stop.code or 0)
    output, errors = capsys.readouterr()
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_the_interpreter_compiles_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warm, "INTERPRETED", True)
    assert warm.main(["--arch", "sm_90"]) == 2
    assert "TRITON_INTERPRET is set" in capsys.readouterr().err
