"""How work is spread over a card: tile sizes and numbers of programs."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from pnas_fast.kernels.triton.launch import Tile, multiprocessors


def block_of(x: Tensor, channels: int) -> int:
    """Filters that one program keeps in registers: a power of two."""
    largest = 128 if x.element_size() == 2 else 32
    wanted: int = triton.next_power_of_2(channels)
    return min(max(32, wanted), largest)


def tile_of(x: Tensor, block: int, channels: int = 0) -> Tile:
    """The tile of a kernel that reads such activations and keeps so many filters in registers.

    ``channels``: over which it loops.
    """
    if x.element_size() == 2 and block <= 64 and channels <= 64:
        return Tile(warps=8, registers=128, programs=2)
    return Tile(warps=8, registers=None, programs=1)


def spread(device: torch.device, tile: Tile, pieces: int, groups: int) -> int:
    """Programs that share so many pieces of work, where each of so many groups has its own."""
    wanted = tile.programs * multiprocessors(device)
    return max(1, min(pieces, wanted // groups))


def new_partials(device: torch.device, *shape: int) -> Tensor:
    """A buffer of partial results."""
    return torch.empty(shape, dtype=torch.float32, device=device)
