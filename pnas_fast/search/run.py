"""Everything a search opens, held together: folder, store, workers, display."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.executor import WorkerPool
from pnas_fast.run_folder import opened
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.display import Display
from pnas_fast.search.evaluator import Evaluator, worker_count
from pnas_fast.search.loop import run_levels
from pnas_fast.search.result import TRIALS, SearchResult
from pnas_fast.store import TrialStore
from pnas_fast.version import VERSION
from pnas_fast.weights import discard_all


def run(config: SearchConfig, folder: Path, display: Display) -> SearchResult:
    """Search, for a resolved configuration whose data set is known to be good.

    Raises:
        RunError: the folder holds another run or something else, or is in use.
        SearchError: every child of a level failed.
    """
    with (
        opened(folder, config),
        TrialStore(folder / TRIALS) as store,
        WorkerPool(worker_count(config), config, folder) as pool,
    ):
        display.note(heading(config))
        evaluator = Evaluator(config, folder, store, pool, display)
        run_levels(config, folder, store, evaluator, display)
        discard_all(folder)
    return SearchResult.load(folder)


def heading(config: SearchConfig) -> str:
    """The first line of a search: what runs where."""
    return (
        f"pnas_fast {VERSION} · {config.data} · B {config.blocks}, K {config.beam}, N {config.repeats}, "
        f"F {config.filters}, {config.epochs} epochs · {config.device}, {worker_count(config)} workers, "
        f"{config.backend} kernels"
    )
