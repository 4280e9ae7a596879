"""Kernels compiled ahead of time, in a process without the interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pnas_fast.kernels.inspect import (
    ARCHITECTURES,
    broken_rules,
    read_table,
    resident,
    search_cells,
    write_table,
)
from pnas_fast.kernels.triton.ahead import Resources
from pnas_fast.space import OPERATIONS

ROOT = Path(__file__).parent.parent
TABLES = {name: ROOT / "bench" / "results" / f"kernels_{name}_bfloat16.tsv" for name in ARCHITECTURES}
COMPILE = """
import sys, torch
from pnas_fast.kernels import inspect
from pnas_fast.space import Cell
cell = Cell.parse("0:sep7x7+1:max_pool3x3,1:conv1x7_7x1+2:sep3x3")
wanted = {}
least = int(sys.argv[3])
for variant in inspect.search_variants(torch.bfloat16, sys.argv[1], [cell]):
    wanted.setdefault(variant.kernel.__name__, variant)
found = inspect.inspect([*wanted.values()][-least:], sys.argv[1])
table = inspect.read_table(inspect.Path(sys.argv[2]))
broken = inspect.broken_rules(found, table)
print("broken", broken)
assert len(found) >= least and set(found) <= set(table) and not broken
"""


@pytest.mark.parametrize(("architecture", "number"), [("sm_80", 2), ("sm_90", 8), ("sm_100", 2)])
def test_one_kernel_of_a_kind_is_no_worse_than_the_committed_table(architecture: str, number: int) -> None:
    """Of every kind for sm_90, of separable convolutions' both directions for the others."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, architecture, str(TABLES[architecture]), str(number)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_committed_tables_have_no_local_memory(architecture: str) -> None:
    table = read_table(TABLES[architecture])
    assert len(table) > 400
    assert not broken_rules(table, table)


def test_worse_kernels_are_named() -> None:
    table = {name: Resources(100, 0, 4096) for name in "abc"}
    found = {"a": Resources(101, 0, 4096), "b": Resources(90, 8, 0), "c": Resources(100, 0, 4096)}
    assert broken_rules(found, table) == [
        "a: 101 registers and 4096 bytes of shared memory, allowed are 100 and 4096",
        "b: 8 bytes of local memory, allowed are 0",
    ]
    assert broken_rules({"new": Resources(255, 0, 0)}, table) == []


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
