"""Kernels compiled ahead of time, in a process without the interpreter."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pnas_fast.kernel_tools import cost, inspect
from pnas_fast.kernel_tools.inspect import (
    broken_rules,
    read_table,
    resident,
    search_cells,
    write_table,
)
from pnas_fast.kernels.triton.aot import Resources
from pnas_fast.space import OPERATIONS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
COMPILE = """
import sys
from pnas_fast.kernel_tools import inspect
from pnas_fast.space import Cell
architecture, dtype, least = *sys.argv[1:3], int(sys.argv[4])
cell = Cell.parse("0:sep7x7+1:max_pool3x3,1:conv1x7_7x1+2:sep3x3")
wanted = {}
for variant in inspect.search_variants(inspect.DTYPES[dtype], architecture, [cell]):
    wanted.setdefault(variant.kernel.__name__, variant)
found = inspect.inspect([*wanted.values()][-least:], architecture)
table = inspect.read_table(inspect.Path(sys.argv[3]))
broken = inspect.broken_rules(found, table)
print("broken", broken)
assert len(found) >= least and set(found) <= set(table) and not broken
"""


JUST_IN_TIME = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import find_paths_if
from pnas_fast.kernels.operation_cost import Cost
from pnas_fast.kernels.triton import aot, launch, primitives
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell


class NoCard:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0


def compare(kernel, grid, arguments, grouped, options):
    described = {name: launch._described(value) for name, value in arguments.items()}
    variant = aot.variant_of(launch.Launch(kernel, grid, described, dict(options), Cost(), 0, 0))
    bind = kernel.device_caches[0][-1]
    _, marks, _ = bind(*[arguments[name] for name in kernel.arg_names], debug=False, **options)
    types = [tuple(kind) if isinstance(kind, (list, tuple)) else kind for kind, _ in marks]
    assert types == list(variant.signature.values()), variant.name()
    aligned = [mark for _, mark in marks]
    divisible = find_paths_if(aligned, lambda _, mark: isinstance(mark, str) and "D" in mark)
    assert set(divisible) == set(variant.attributes), variant.name()
    seen.add((kernel.__name__, any(isinstance(kind, tuple) and len(kind) == 2 for kind in types)))


seen = set()
driver.set_active(NoCard())
launch.library.call, primitives.INTERPRETED = compare, True
cell = Cell.parse("0:sep3x3+1:max_pool3x3,1:sep3x3+0:max_pool3x3,1:conv1x7_7x1+0:conv1x7_7x1")
for filters, dtype in ((24, torch.bfloat16), (7, torch.float32)):
    network = ChildNetwork(cell, 2, filters, 3, (3, 8, 8), backend="triton")
    network.classifier.to(dtype)
    images = torch.randn(2, 3, 8, 8).to(dtype, memory_format=torch.channels_last)
    network(images).sum().backward()
assert len({name for name, _ in seen}) == 9, seen
assert len({name for name, paired in seen if paired}) == 7, seen
"""

NAMES = """
import sys
from pnas_fast.kernel_tools import inspect

cells = [*inspect.search_cells()][::30]
table = inspect.read_table(inspect.Path(sys.argv[2]))
missing = [
    variant.name()
    for variant in inspect.search_variants(inspect.DTYPES["bfloat16"], sys.argv[1], cells)
    if variant.name() not in table
]
print("missing", missing)
assert not missing
"""


def without_interpreter(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def table_of(architecture: str) -> Path:
    return RESULTS / f"kernels_{architecture}_bfloat16.tsv"


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "number"), [("sm_80", 2), ("sm_90", 8), ("sm_100", 2)])
def test_one_kernel_of_a_kind_is_no_worse_than_the_committed_table(architecture: str, number: int) -> None:
    """Of every kind for sm_90, of separable convolutions' both directions for the others."""
    table = str(table_of(architecture))
    done = without_interpreter(COMPILE, architecture, "bfloat16", table, str(number))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("architecture", inspect.ARCHITECTURES)
def test_no_kernel_uses_local_memory(architecture: str) -> None:
    table = read_table(table_of(architecture))
    assert len(table) > 800
    assert not broken_rules(table, {})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", inspect.ARCHITECTURES)
def test_tables_hold_the_kernels_of_every_thirtieth_cell(architecture: str) -> None:
    done = without_interpreter(NAMES, architecture, str(table_of(architecture)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_compiled_ahead_is_what_a_card_would_compile() -> None:
    """Triton's own binding of arguments, as the first launch on a card asks for it, says the same of each."""
    done = without_interpreter(JUST_IN_TIME)
    assert done.returncode == 0, done.stdout + done.stderr


def test_worse_kernels_are_named() -> None:
    table = {name: Resources(100, 8, 4096) for name in "abcf"}
    found = {"a": Resources(101, 0, 4096), "b": Resources(90, 0, 0), "c": Resources(100, 8, 4096)}
    new = {"d": Resources(255, 0, 0), "e": Resources(90, 16, 0)}
    more = {"f": Resources(100, 0, 4097)}
    assert broken_rules(found | new | more, table) == [
        "a: 101 registers and 4096 bytes of shared memory, allowed are 100 and 4096",
        "c: 8 bytes of local memory, allowed are none",
        "e: 16 bytes of local memory, allowed are none",
        "f: 100 registers and 4097 bytes of shared memory, allowed are 100 and 4096",
    ]


@pytest.mark.parametrize(
    ("program", "line", "message"),
    [
        (inspect, "--arch sm_12", "argument --arch: invalid choice: 'sm_12'"),
        (inspect, "--check none.tsv", "--check none.tsv: no such file"),
        (inspect, "--write none/x.tsv", "--write none/x.tsv: no such folder"),
        (cost, "--cell 0:sep3x3", "argument --cell: block 0: '0:sep3x3' is not of the form in:op+in:op"),
        (cost, "--batch 0", "argument --batch: '0', allowed is a whole number from 1 to"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    program: ModuleType, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        program.main(line.split())
    assert exited.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_tables_are_read_as_written(tmp_path: Path) -> None:
    found = {"a b=1": Resources(100, 0, 4096), "c": Resources(32, 8, 0)}
    write_table(tmp_path / "table.tsv", found)
    assert read_table(tmp_path / "table.tsv") == found


@pytest.mark.parametrize(
    ("used", "warps", "held"),
    [
        ((128, 0, 4096), 8, 2),
        ((255, 0, 0), 8, 1),
        ((32, 0, 100_000), 4, 2),
        ((32, 0, 0), 4, 16),
        ((64, 0, 0), 1, 32),
    ],
)
def test_programs_a_multiprocessor_can_hold(used: tuple[int, int, int], warps: int, held: int) -> None:
    assert resident(Resources(*used), warps, "sm_90") == held


def test_cells_hold_every_pair_of_operations() -> None:
    pairs = {(block.op1, block.op2) for cell in search_cells() for block in cell.blocks}
    assert len(pairs) == len(OPERATIONS) ** 2
