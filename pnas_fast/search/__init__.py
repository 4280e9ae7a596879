"""The progressive search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pnas_fast.search.config import SearchConfig
    from pnas_fast.search.result import SearchResult

__all__ = ["search"]


def search(
    config: SearchConfig | None = None, *, out: Path | str | None = None, progress: bool = True
) -> SearchResult:
    """Run a Progressive Neural Architecture Search, or continue one.

    Trains all one-block cells, fits the surrogate, then level by level expands the trained cells by a
    block, scores every candidate, trains the best K and refits (Liu et al. 2018, algorithm 1). Nothing
    finished is lost when the process dies; calling it again with the same arguments goes on.

    Args:
        config: what to do; the ``quick`` preset by default.
        out: the run's folder; by default one under ``runs`` that is named after the configuration.
        progress: show progress on standard output.

    Returns:
        The best cell, its accuracy and all trials. Weights, report and figures are in ``folder``.

    Raises:
        ConfigError: a value this machine cannot serve.
        DataError: a data set that is missing or damaged.
        RunError: a folder that holds another run or something else, or is in use.
        SearchError: every child of a level failed.
    """
    # Here, so that `import pnas_fast` needs neither PyTorch, nor the compiled module, nor plotting libraries.
    from rich.console import Console

    from pnas_fast.engine import load_training_data
    from pnas_fast.runs.folder import default_folder
    from pnas_fast.search.config import device_note, quick
    from pnas_fast.search.display import SilentDisplay, choose_display
    from pnas_fast.search.run import run

    asked = config or quick()
    config = asked.resolved()
    data = load_training_data(config)  # a damaged data set is found before anything is written
    display = choose_display(Console()) if progress else SilentDisplay()
    note = device_note(asked, config)
    if note:
        display.note(note)
    try:
        return run(config, data, default_folder(config) if out is None else Path(out), display)
    finally:
        display.close()
