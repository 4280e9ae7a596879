"""Drawing cells that are new and keep limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pnas_fast.objectives.aims import Aims
from pnas_fast.space import Cell

TRIES = 100
"""Cells drawn for one proposal, while they were proposed before."""

LIMITED_TRIES = 500
"""Cells drawn for one proposal, while none keeps all limits."""

Drawn = TypeVar("Drawn")


def draw_fitting(
    draw: Callable[[], Drawn],
    cell_of: Callable[[Drawn], Cell],
    is_known: Callable[[Drawn], bool],
    aims: Aims,
) -> Drawn:
    """The first of what is drawn whose cell is not known and keeps all limits.

    After `TRIES` draws a cell that keeps them and is known will do; where there is none after
    `LIMITED_TRIES`, that one which is not known and breaks them least. Of equals it is the last.
    """
    least = (True, True, float("inf"))
    for attempt in range(LIMITED_TRIES if aims.limits else TRIES):
        if attempt >= TRIES and not least[0]:
            break
        drawn = draw()
        violation = aims.violation(cell_of(drawn))
        # Costs are looked at first: whether a cell is known takes longer to say.
        if (violation > 0, False, violation) > least:
            continue
        rank = (violation > 0, is_known(drawn), violation)
        if not any(rank):
            return drawn
        if rank <= least:
            best, least = drawn, rank
    return best
