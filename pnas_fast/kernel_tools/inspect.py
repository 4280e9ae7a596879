"""What the machine code of every kernel of a search uses, compiled ahead of time: no card is needed.

    python -m pnas_fast.kernel_tools.inspect --arch sm_90 [--dtype bfloat16] [--write FILE | --check FILE]

The kernels are those that children of the paper's search launch (N = 2, F = 24, CIFAR layout): cells of
every pair of operations, reading every input, of one to five blocks, alike operations alone and in one
launch. Prints registers of a thread, bytes of local memory (spills and stack) of a thread, bytes of
shared memory of a program, and programs that a multiprocessor can hold. Exits with 1 where a kernel uses
local memory or, with ``--check``, more of anything than the table in a file says.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from pnas_fast.cli.parser import Parser
from pnas_fast.cli.streams import run_command
from pnas_fast.kernel_tools.cost import DTYPES, fused_launches
from pnas_fast.kernels.triton.aot import Resources, Variant, variant_of
from pnas_fast.space import OPERATIONS, Cell

ARCHITECTURES = {"sm_80": 80, "sm_90": 90, "sm_100": 100}
SHARED_MEMORY = {"sm_80": 164 << 10, "sm_90": 228 << 10, "sm_100": 228 << 10}
"""Bytes of a multiprocessor; a program takes 1 KiB besides its own."""

REGISTERS, WARPS, PROGRAMS = 65536, 64, 32
"""Most of a multiprocessor."""

IMAGES = 8


def search_cells() -> Iterator[Cell]:
    """Cells that together ask for every kernel: every pair of operations on every pair of inputs."""
    for left, right in itertools.product(OPERATIONS, repeat=2):
        for pairs in (("00", "01", "11", "20", "21"), ("10", "02", "12", "22", "33")):
            blocks = [f"{one}:{left}+{other}:{right}" for one, other in pairs]
            yield Cell.parse(",".join(blocks))
        # Alone, too: what one cell does twice goes in one launch. With two blocks the cell before the
        # previous one has a reduction's channels and is read as it is.
        for pair in ("00", "01", "10", "11"):
            yield Cell.parse(f"{pair[0]}:{left}+{pair[1]}:{right},0:identity+1:identity")
        # And of two blocks.
        blocks = [
            "0:identity+1:identity",
            "1:identity+0:identity",
            f"2:{left}+2:{right}",
            f"3:{left}+3:{right}",
        ]
        yield Cell.parse(",".join(blocks))
    # What a cell does not read is not brought to its size, so the other input is alone with that.
    for count, pair in itertools.product(range(1, 6), ("01", "00", "11")):
        yield Cell.parse(",".join([f"{pair[0]}:identity+{pair[1]}:identity"] * count))


def search_variants(
    dtype: torch.dtype, architecture: str, cells: Iterable[Cell] | None = None
) -> list[Variant]:
    """The kernels of children of these cells, or of `search_cells`, each once."""
    found: dict[object, Variant] = {}
    for cell in search_cells() if cells is None else cells:
        for launch in fused_launches(cell, 24, IMAGES, dtype, ARCHITECTURES[architecture])[0]:
            variant = variant_of(launch)
            found.setdefault(variant.key(), variant)
    return sorted(found.values(), key=Variant.name)


def resident(resources: Resources, warps: int, architecture: str) -> int:
    """Programs of a kernel that a multiprocessor can hold."""
    by_registers = REGISTERS // (-(-resources.registers // 8) * 8 * 32 * warps)
    by_memory = SHARED_MEMORY[architecture] // (resources.shared + 1024)
    return min(by_registers, by_memory, WARPS // warps, PROGRAMS)


def inspect(
    variants: Sequence[Variant], architecture: str, show: Callable[[str], None] = print
) -> dict[str, Resources]:
    """Compile kernels for an architecture and show a line for each."""
    show(f"registers local shared resident  kernel ({architecture})")
    found = {}
    for variant in variants:
        used = variant.compile(ARCHITECTURES[architecture])
        held = resident(used, variant.options["num_warps"], architecture)
        show(f"{used.registers:9} {used.local:5} {used.shared:6} {held:8}  {variant.name()}")
        found[variant.name()] = used
    return found


def broken_rules(found: dict[str, Resources], table: dict[str, Resources]) -> list[str]:
    """A line for each kernel that uses local memory, or more of anything than the table says."""
    lines = []
    for name, used in found.items():
        was = table.get(name)
        if used.local:
            lines.append(f"{name}: {used.local} bytes of local memory, allowed are none")
        elif was and any(now > before for now, before in zip(used, was, strict=True)):
            lines.append(
                f"{name}: {used.registers} registers and {used.shared} bytes of shared memory, allowed are "
                f"{was.registers} and {was.shared}"
            )
    return lines


def read_table(path: Path) -> dict[str, Resources]:
    """A table that `write_table` wrote."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return {name: Resources(*map(int, numbers)) for name, *numbers in rows}


def write_table(path: Path, found: dict[str, Resources]) -> None:
    """Tab-separated: name, registers, bytes of local and of shared memory."""
    lines = ["\t".join(("kernel", *Resources._fields))]
    lines += ["\t".join((name, *map(str, used))) for name, used in found.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a rule is broken."""
    parser = Parser(prog="python -m pnas_fast.kernel_tools.inspect", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", choices=ARCHITECTURES, default="sm_90", help="architecture")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of activations")
    parser.add_argument("--kernel", default="", help="only kernels whose line holds this")
    parser.add_argument("--write", type=Path, help="write the table to a file")
    parser.add_argument("--check", type=Path, help="compare with the table in a file")
    options = parser.parse_args(arguments)
    if options.write and not options.write.parent.is_dir():
        parser.error(f"--write {options.write}: no such folder")
    if options.check and not options.check.is_file():
        parser.error(f"--check {options.check}: no such file")
    variants = search_variants(DTYPES[options.dtype], options.arch)
    variants = [variant for variant in variants if options.kernel in variant.name()]
    found = inspect(variants, options.arch)
    if options.write:
        write_table(options.write, found)
    broken = broken_rules(found, read_table(options.check) if options.check else {})
    print("\n".join(broken), end="\n" if broken else "")
    most = max((used.registers for used in found.values()), default=0)
    spilling = sum(used.local > 0 for used in found.values())
    print(
        f"{len(found)} kernels for {options.arch} in {options.dtype}: at most {most} registers, "
        f"{spilling} with local memory, {len(broken)} rules broken"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
