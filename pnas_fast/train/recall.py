"""The recall of each class in a line: the classes that a network recognises worst."""

from __future__ import annotations

from collections.abc import Sequence

from pnas_fast.foreign import printable
from pnas_fast.report.text import percent

SHOWN = 5
"""Classes that are named; a run's files have all."""


def recall_text(recalls: Sequence[float | None], names: Sequence[str]) -> str:
    """``recall of classes, the lowest: cat 61.2 %, dog 70.0 %``.

    Args:
        recalls: of the classes, in order; None of those without images.
        names: likewise; empty where they have none.
    """
    shown = names or tuple(map(str, range(len(recalls))))
    known = sorted(((recall, number) for number, recall in enumerate(recalls) if recall is not None))[:SHOWN]
    told = ", ".join(f"{printable(shown[number])} {percent(recall)}" for recall, number in known)
    return f"recall of classes, the lowest: {told}"
