"""How work is spread over a card: tile sizes and numbers of programs."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from pnas_fast.kernels.triton.device import TEAM
from pnas_fast.kernels.triton.launch import Tile, capability, multiprocessors
from pnas_fast.kernels.triton.planning import part_of
from pnas_fast.kernels.triton.tuned_tiles import measured


def block_of(x: Tensor, channels: int, widest_fp32: int = 32) -> int:
    """Filters that one program keeps in registers: a power of two."""
    largest = 128 if x.element_size() == 2 else widest_fp32
    wanted: int = triton.next_power_of_2(channels)
    return min(max(32, wanted), largest)


MEASURED = 90
"""The compute capability for which the rule below was measured, on an H100: two programs of a
multiprocessor, in half its registers, are up to 1.5 times as fast as one. Others get all registers.
"""

LARGE = (
    ("add_backward of averages", 32),
    ("dense_backward of taps", 32),
    ("separable_backward 3 dilated", 32),
    ("separable_backward 3 dilated", 64),
    ("separable_backward 7", 32),
    ("separable_backward 7", 64),
)
"""Kernels and blocks of filters that half the registers do not hold on that card, beside gradients of
separable convolutions with larger blocks: three programs of half the size have a third more. This was
counted, not measured.
"""

ALL_REGISTERS = ("separable_backward 3 dilated of a sum", "separable_backward 5 of a sum")
"""Kernels that would spill with Triton 3.6.0 in fewer than a thread can have. Counted, not measured."""


def tile_of(kernel: str, x: Tensor, block: int, align: int, channels: int = 0) -> Tile:
    """How a kernel is compiled for the card that holds x: as measured, else by a rule.

    Args:
        kernel: its name, of a depthwise convolution with the window's side.
        x: what it reads.
        block: filters that a program keeps in registers.
        align: elements by which everything it reads is divisible; narrow loads take more registers.
        channels: over which it loops.
    """
    card = capability(x.device)
    key = f"{kernel}, {8 * x.element_size()} bits, {block} filters, {channels} channels, aligned by {align}"
    return measured(key, card, _usual_tile(kernel, x, block, align, card))


def _usual_tile(kernel: str, x: Tensor, block: int, align: int, card: int) -> Tile:
    if card == MEASURED and x.element_size() == 2 and align == 8:
        if kernel in ALL_REGISTERS:
            return Tile(warps=4, registers=255, programs=2)
        if (kernel, block) in LARGE or (kernel.startswith("separable_backward") and block > 64):
            return Tile(warps=4, registers=168, programs=3)
        return Tile(warps=8, registers=128, programs=2)
    # Left to itself the compiler may stop at 128 registers and spill.
    return Tile(warps=8, registers=255, programs=1)


def spread(device: torch.device, tile: Tile, pieces: int, groups: int) -> int:
    """Programs that share so many pieces of work, at least one each; each of so many groups has its own.

    As many as the card holds, or the part of it that is planned for, less those without which the last piece
    is done no later: each has partial results to write and to read.
    """
    held = max(1, min(pieces, tile.programs * part_of(multiprocessors(device)) // groups))
    return -(-pieces // -(-pieces // held))


def teams_of(programs: int) -> int:
    """Teams of so many programs (see `pnas_fast.kernels.triton.device.TEAM`)."""
    members: int = TEAM.value
    return -(-programs // members)


def new_partials(device: torch.device, problems: int, programs: int, *shape: int) -> Tensor:
    """A buffer of partial results: for each problem a row of each program, then one of each team."""
    return torch.empty(problems, programs + teams_of(programs), *shape, dtype=torch.float32, device=device)
