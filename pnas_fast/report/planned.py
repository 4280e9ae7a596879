"""How far a search is that asks for a given number of trials."""

from __future__ import annotations

from pnas_fast.report.text import count, number, plural
from pnas_fast.report.view import RunView


def unfinished_trials(view: RunView) -> str:
    """``Unfinished: 40 of 100 trials.``; empty where the configuration's ``trials`` are done or not said."""
    planned = number(view.record.config.get("trials"))
    done = len(view.record.trials)
    if planned is None or done >= planned:
        return ""
    return f"Unfinished: {count(done)} of {plural(int(planned), 'trial', 'trials')}."
