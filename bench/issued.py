"""Instructions that the separable convolutions of a training step issue, counted: no card is needed.

    python bench/issued.py [WORD …] [--cell CELL] [--arch sm_90]

Of every launch of a separable half, forward and backward, in a step of the cell's child (N = 2, F = 24,
batch 128, bf16): the instructions of the loop over tiles, those of loops inside it as often as these go
round, times tiles; and for each program those from that loop's end to the ticket it takes. What only the
last program of a launch does, and what waiting takes, is not counted. A row for each kernel, then sums.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from machine_code import Instruction, Loop, loops, read
from pnas_fast.cli.parser import Parser
from pnas_fast.kernel_tools.cost import CELLS, cell_text, fused_launches
from pnas_fast.kernel_tools.inspect import ARCHITECTURES
from pnas_fast.kernels.triton.aot import disassemble, variant_of
from pnas_fast.kernels.triton.device import CHUNK
from pnas_fast.kernels.triton.launch import Launch
from pnas_fast.kernels.triton.strips import pairs_of_rows, rows_of_part
from pnas_fast.space import Cell

BATCH, FILTERS = 128, 24

TILES = 300
"""Instructions of a loop over tiles at least; other loops outside of loops merge partial results."""

TICKETS = ("ATOM", "ATOMG")


class Part(NamedTuple):
    """A loop over tiles as the source has it.

    Attributes:
        tiles: how often all programs together go round.
        programs: that share them.
        rows: of each loop inside it over rows of inputs, how often it goes round at most and on average; none
            where there are no such.
        chunks: how often the loop around those goes round, 1 where there is none.
    """

    tiles: int
    programs: int
    rows: tuple[tuple[int, float], ...]
    chunks: int


def rows_of(own: dict[str, Any], *, transposed: bool) -> tuple[tuple[int, float], ...]:
    """How often the loops over rows of `strips.convolve` go round, without those that it has not."""
    k, s, d, pad = own["K"], own["S"], own["D"], own["PAD_Y"]
    outputs, inputs = (own["H"], own["OH"]) if transposed else (own["OH"], own["H"])
    pairs = int(pairs_of_rows(outputs, s, d))
    found = []
    for part in range(3):
        rows = range(*rows_of_part(part, k, s, d, pad if transposed else 0, transposed))
        # As `strips.upper_row` has it, of inputs.
        apart = d if s == 1 else 1
        uppers = [pair // apart * 2 * apart + pair % apart for pair in range(pairs)]
        tops = [upper // s if transposed else upper * s - pad for upper in uppers]
        held = sum(0 <= top + row < inputs for top in tops for row in rows)
        found += [(len(rows), held / pairs)] if rows else []
    return tuple(found)


def parts_of(launch: Launch) -> list[Part]:
    """The loops over tiles of a launch; those without loops inside in the order in which they are large."""
    own, problems = launch.arguments, len(launch.arguments["z"])
    k, s, d = own["K"], own["S"], own["D"]
    chunks = -(-own["C"] // CHUNK.value)
    blocks = -(-own["F"] // own["BLOCK_F"])

    def tiles(height: int, width: int, lanes: int, columns: int) -> int:
        return int(pairs_of_rows(height, s, d) * -(-own["N"] * -(-width // columns) // lanes))

    forward = rows_of(own, transposed=False)
    outputs = tiles(own["OH"], own["OW"], own["LANES"], own["COLS"])
    if "TAP_ROWS" not in own:
        return [Part(outputs * blocks * problems, launch.grid[0] * blocks * problems, forward, chunks)]
    wide = own["WIDE_LANES"], own["WIDE_COLS"]
    chunks = chunks * blocks * problems, -(-own["C"] // own["WIDE_CHUNK"]) * problems
    found = [Part(outputs * chunks[0], own["pointwise_programs"] * chunks[0], forward, 1)]
    whole, left = divmod(k, own["TAP_ROWS"])
    for groups in filter(None, (whole, min(left, 1))):
        weights = tiles(own["OH"], own["OW"], *wide) * groups * chunks[1]
        found.append(Part(weights, own["depthwise_programs"] * groups * chunks[1], (), 1))
    if own["source_programs"]:
        source = tiles(own["H"], own["W"], *wide) * chunks[1]
        programs = own["source_programs"] * chunks[1]
        found.append(Part(source, programs, rows_of(own, transposed=True), 1))
    return found


def inside(loop: Loop, others: Sequence[Loop]) -> list[Loop]:
    """The loops right inside of one, in order."""
    held = [other for other in others if other != loop and within(other, loop)]
    return [one for one in held if not any(other != one and within(one, other) for other in held)]


def within(one: Loop, other: Loop) -> bool:
    """Whether a loop is in another one, or is it."""
    return other.holds(one.begin) and other.holds(one.end)


def size(loop: Loop, code: Sequence[Instruction]) -> int:
    """Instructions between a loop's ends."""
    return sum(loop.holds(one.address) for one in code)


def of_a_tile(loop: Loop, part: Part, code: Sequence[Instruction], found: Sequence[Loop]) -> float:
    """Instructions that a warp issues for a tile; what may be jumped over counts."""
    own = inside(loop, found)
    if part.chunks > 1:
        (chunk,) = own
        once = size(loop, code) - size(chunk, code)
        return once + part.chunks * of_a_tile(chunk, part._replace(chunks=1), code, found)
    # The compiler makes no loop of what is done once at most.
    rows = [average for most, average in part.rows if most > 1 or len(own) == len(part.rows)]
    if len(own) != len(rows):
        raise ValueError(f"a loop over tiles has {len(own)} loops, its source has {len(rows)}")
    counts = [size(one, code) for one in own]
    return float(size(loop, code) - sum(counts) + sum(map(operator.mul, counts, rows)))


def of_a_program(loop: Loop, code: Sequence[Instruction]) -> int:
    """Instructions from a loop's end to the next ticket."""
    after = [one for one in code if one.address > loop.end]
    return next((place for place, one in enumerate(after) if one.kind in TICKETS), len(after))


def match(parts: Sequence[Part], code: Sequence[Instruction]) -> Iterator[tuple[Part, Loop, list[Loop]]]:
    """Each part with its loop: of those with loops inside or without the first or the largest left."""
    found = [loop for loop in loops(list(code)) if size(loop, code) > 2]
    outer = [
        loop
        for loop in found
        if size(loop, code) >= TILES and not any(other != loop and within(loop, other) for other in found)
    ]
    for part in parts:
        like = [loop for loop in outer if bool(inside(loop, found)) == bool(part.rows)]
        loop = like[0] if part.rows else max(like, key=lambda loop: size(loop, code))
        outer.remove(loop)
        yield part, loop, found


def issued(launch: Launch, code: Sequence[Instruction]) -> float:
    """Warps' instructions of a launch."""
    total = 0.0
    for part, loop, found in match(parts_of(launch), code):
        total += part.tiles * of_a_tile(loop, part, code, found) + part.programs * of_a_program(loop, code)
    return total * launch.options["num_warps"]


def main() -> int:
    """Print the table."""
    title, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="python bench/issued.py", description=title, epilog=rest.partition("\n\n")[2])
    parser.add_argument("--cell", type=cell_text, default=CELLS["PNASNet-5"], help="a cell as text")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="sm_90")
    parser.add_argument("words", nargs="*", help="of the lines of the kernels that are wanted")
    options = parser.parse_args()
    capability = ARCHITECTURES[options.arch]
    cell = Cell.parse(options.cell)
    launches, _ = fused_launches(cell, FILTERS, BATCH, torch.bfloat16, capability)
    kinds: dict[Any, list[Launch]] = {}
    for launch in launches:
        if "K" in launch.arguments:
            kinds.setdefault(variant_of(launch).key(), []).append(launch)
    sums: dict[str, float] = {}
    print("launches  M instructions each  kernel")
    for alike in kinds.values():
        variant = variant_of(alike[0])
        if not all(word in variant.name() for word in options.words):
            continue
        code = read(disassemble(variant.build(capability).asm["cubin"]))
        each = [issued(launch, code) for launch in alike]
        print(f"{len(alike):8} {sum(each) / len(each) / 1e6:20.2f}  {variant.name()}", flush=True)
        name = variant.name().split()[0]
        sums[name] = sums.get(name, 0.0) + sum(each)
    for name, total in sums.items():
        print(f"{name}: {total / 1e6:.1f} M instructions")
    print(f"all: {sum(sums.values()) / 1e6:.1f} M instructions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
