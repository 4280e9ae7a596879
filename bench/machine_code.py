"""The loops of a Triton kernel's machine code, and how many instructions they have: no card is needed.

    python bench/machine_code.py 'separable_backward bf16' K=5 C=24 [--cell CELL] [--arch sm_90]

Takes the first kernel of the cell's child (N = 2, F = 24) whose line in `kernel_tools.inspect` holds
all of the words, and prints every loop of some length: its addresses, its instructions, those of them that
are in no loop inside it, and the most frequent kinds of these. A kernel is not done before it has issued its
instructions, so loops say what is worth changing where no card is at hand.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import NamedTuple

import torch

from pnas_fast.cli.parser import Parser
from pnas_fast.kernel_tools.cost import CELLS, cell_text
from pnas_fast.kernel_tools.inspect import ARCHITECTURES, search_variants
from pnas_fast.kernels.triton.aot import disassemble
from pnas_fast.space import Cell

SHORTEST = 60
"""Instructions of a loop that is shown."""

KINDS = 8


class Instruction(NamedTuple):
    """One instruction: its address, its kind, and the address it jumps to, if it does."""

    address: int
    kind: str
    target: int | None


class Loop(NamedTuple):
    """From the instruction that is jumped back to, to the jump."""

    begin: int
    end: int

    def holds(self, address: int) -> bool:
        """Whether an instruction is in it."""
        return self.begin <= address <= self.end


def read(text: str) -> list[Instruction]:
    """The instructions of a disassembly."""
    found = []
    for address, words in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", text, re.MULTILINE):
        kind = re.sub(r"^@!?U?P\d+\s+", "", words).split()[0].split(".")[0]
        target = re.search(r"0x([0-9a-f]+)", words) if kind == "BRA" else None
        found.append(Instruction(int(address, 16), kind, int(target[1], 16) if target else None))
    return found


def loops(instructions: list[Instruction]) -> list[Loop]:
    """Loops in the order of their beginnings; jumps to themselves, which end a kernel, are none."""
    back = [one for one in instructions if one.target is not None and one.target < one.address]
    return sorted(Loop(one.target, one.address) for one in back if one.target is not None)


def describe(instructions: list[Instruction]) -> list[str]:
    """A line for each loop of some length."""
    found = [
        loop
        for loop in loops(instructions)
        if sum(loop.holds(one.address) for one in instructions) >= SHORTEST
    ]
    lines = []
    for loop in found:
        inside = [one for one in instructions if loop.holds(one.address)]
        inner = [
            other for other in found if other != loop and loop.holds(other.begin) and loop.holds(other.end)
        ]
        own = [one for one in inside if not any(other.holds(one.address) for other in inner)]
        kinds = Counter(one.kind for one in own).most_common(KINDS)
        most = " ".join(f"{kind} {count}" for kind, count in kinds)
        lines.append(f"{loop.begin:6x} {loop.end:6x} {len(inside):6} {len(own):6}  {most}")
    return lines


def main() -> int:
    """Print the loops; 2 where no kernel is meant."""
    title, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="python bench/machine_code.py", description=title, epilog=rest.partition("\n\n")[2])
    parser.add_argument("words", nargs="+", help="of the kernel's line")
    parser.add_argument("--cell", type=cell_text, default=CELLS["PNASNet-5"], help="a cell as text")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="sm_90")
    options = parser.parse_args()
    variants = search_variants(torch.bfloat16, options.arch, [Cell.parse(options.cell)])
    meant = [variant for variant in variants if all(word in variant.name() for word in options.words)]
    if not meant:
        print(
            f"{' '.join(options.words)}: none of the {len(variants)} kernels of {options.cell}",
            file=sys.stderr,
        )
        return 2
    compiled = meant[0].build(ARCHITECTURES[options.arch])
    instructions = read(disassemble(compiled.asm["cubin"]))
    print(
        f"{meant[0].name()}\n{len(instructions)} instructions\n from     to    all    own  kinds of its own"
    )
    print("\n".join(describe(instructions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
