"""How far a search is that has a budget of children."""

from __future__ import annotations

from pnas_fast.counting import count_distinct
from pnas_fast.report.text import count, number, plural
from pnas_fast.report.view import RunView
from pnas_fast.space import CellError
from pnas_fast.strategies.asked import MOST_ASKED


def unfinished_choice(view: RunView) -> str:
    """``Unfinished: 3 of 9 final trainings so far.``; empty where all are there."""
    done, planned = len(view.record.finals), view.record.planned_finals
    return (
        ""
        if done >= planned
        else f"Unfinished: {done} of {plural(planned, 'final training', 'final trainings')} so far."
    )


def unfinished_budget(view: RunView) -> str:
    """``Unfinished: 40 of 100 children so far.``; empty where the budget is spent or nobody gave one.

    A search that finds nothing new any more ends before its budget does.
    """
    budget = number(view.record.config.get("budget")) or 0
    done = len(view.trials)
    if done >= budget or len(view.record.trials) >= MOST_ASKED * budget:
        return ""
    return f"Unfinished: {count(done)} of {plural(int(budget), 'child', 'children')} so far."


def unfinished_without_repeats(view: RunView) -> str:
    """`unfinished_budget` of a search that ends where the whole space was trained."""
    config = view.record.config
    blocks, operations = config.get("blocks"), config.get("operations")
    try:
        if isinstance(blocks, int) and isinstance(operations, list):
            return "" if len(view.trials) >= count_distinct(blocks, operations) else unfinished_budget(view)
    except CellError:
        pass
    return unfinished_budget(view)
