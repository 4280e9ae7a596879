"""A counter-based generator of random numbers, and the order and augmentation that it draws.

A number is a function of a key and a counter alone, in integer arithmetic that is exact on every device,
so any number can be made again by itself, with the same bits everywhere.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


class Key(NamedTuple):
    """Two words of 32 bits."""

    first: int
    second: int


def key_of(*words: int | str) -> Key:
    """A key from whatever it depends on: 64 bits of BLAKE2b."""
    digest = hashlib.blake2b(" ".join(map(str, words)).encode(), digest_size=8).digest()
    return Key(int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big"))


def random_words(key: Key, counters: Tensor) -> Tensor:
    """A 32-bit number for each counter: ``mix(mix(counter ^ first) ^ second)``.

    Every step of it can be undone, so distinct counters have distinct numbers.

    Args:
        key: which of 2**64 such functions.
        counters: int64, each in [0, 2**32).

    Returns:
        int64, each in [0, 2**32), of the counters' shape and device.
    """
    return _mix(_mix(counters ^ key.first) ^ key.second)


def _mix(x: Tensor) -> Tensor:
    # Multiply, xor, shift by constants that a search for little bias found (Wellons, hash-prospector). They
    # are less than 2**31, so that no product overflows int64.
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _WORD
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _WORD
    return x ^ (x >> 15)


class Draws(NamedTuple):
    """How many values each random choice of an image has.

    Attributes:
        offsets: positions of a crop, along each axis.
        flips: 2 where images are mirrored, else 1.
        height: of an image, and so of the centre of a square to blank out.
        width: likewise.
    """

    offsets: int
    flips: int
    height: int
    width: int


COLUMNS = 6
"""Of a plan: image, crop's top, crop's left, mirrored or not, square's centre y and x."""


def new_plan(images: int, device: torch.device) -> Tensor:
    """Memory for `draw_plan`: int32 (images, COLUMNS)."""
    return torch.zeros(images, COLUMNS, dtype=torch.int32, device=device)


def draw_plan(plan: Tensor, seed: int, epoch: int, draws: Draws) -> None:
    """Write the plan of an epoch: a row for every image, in the order in which they are shown.

    The order is that of random words. What happens to an image depends on its index, not on its position
    in the order. Choices are uniform but for one part in 2**32 / values.

    Args:
        plan: int32 (images, COLUMNS), to be written.
        seed: with the epoch, decides everything.
        epoch: counted from 0.
        draws: what is to be drawn.
    """
    numbers = torch.arange(len(plan), device=plan.device)
    order = random_words(key_of(seed, epoch, "order"), numbers).argsort()
    ranges = {
        "top": draws.offsets,
        "left": draws.offsets,
        "mirror": draws.flips,
        "y": draws.height,
        "x": draws.width,
    }
    plan[:, 0] = order
    for column, (name, values) in enumerate(ranges.items(), 1):
        plan[:, column] = (random_words(key_of(seed, epoch, name), order) * values) >> 32
