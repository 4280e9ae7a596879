"""The page of a search that trains every cell."""

from __future__ import annotations

from pnas_fast.report.section import StrategyPage
from pnas_fast.report.text import count, plural
from pnas_fast.report.view import RunView
from pnas_fast.strategies.exhaustive import level_sizes


def _unfinished(view: RunView) -> str:
    """``Unfinished: 40 of 100 children so far.``; empty where all are there."""
    config, done = view.record.config, len(view.trials)
    planned = config["replicas"] * sum(level_sizes(config["blocks"], config["operations"], config["cells"]))
    return (
        ""
        if done >= planned
        else f"Unfinished: {count(done)} of {plural(planned, 'child', 'children')} so far."
    )


PAGE = StrategyPage(
    title="Every cell of a space",
    explanation="Every distinct cell is trained, and perhaps more than once, with other seeds: here it is "
    "known which cell is best, and so how near to it a strategy comes.",
    unfinished=_unfinished,
)
