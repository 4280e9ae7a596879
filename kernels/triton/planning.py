"""For what part of a card launches are planned. Importing this imports no Triton.

A launch has as many programs as fit the card, so that it fills it. Where several children train on one card
each launch need only fill its part, and leaves the others room. How many programs there are decides how their
sums are rounded: so the part is a setting of the children, never a matter of how many there happen to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_shares: list[int] = []


@contextmanager
def planned_for(share: int) -> Iterator[None]:
    """Plan launches for one part of ``share`` equal ones of the card's multiprocessors, for all threads.

    It is for all of them since PyTorch runs a backward on threads of its own; one thread at a time launches.
    """
    _shares.append(share)
    try:
        yield
    finally:
        _shares.pop()


def part_of(multiprocessors: int) -> int:
    """How many of so many multiprocessors a launch is planned for by now; at least one."""
    return max(1, multiprocessors // _shares[-1]) if _shares else multiprocessors
