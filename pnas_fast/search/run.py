"""Everything a search opens, held together: folder, store, workers, display."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.data import DataSet
from pnas_fast.evaluation.profiling import trace_file
from pnas_fast.executors.pool import WorkerPool
from pnas_fast.executors.shared import shared_data
from pnas_fast.runs.folder import opened
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import discard_all
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.display import Display
from pnas_fast.search.evaluator import Evaluator, Profiled
from pnas_fast.search.loop import run_levels
from pnas_fast.search.plan import describe_devices
from pnas_fast.search.preflight import choose_devices
from pnas_fast.search.result import TRIALS, SearchResult
from pnas_fast.search.warming import warm_kernels
from pnas_fast.search.writing import ReportWriter
from pnas_fast.version import VERSION


def run(
    config: SearchConfig, data: DataSet, folder: Path, display: Display, profiled: Profiled | None = None
) -> SearchResult:
    """Search, for a resolved configuration and its data set, in the CPU's memory.

    Raises:
        RunError: the folder holds another run or something else, or is in use.
        PreflightError: not even one child fits the GPU.
        SearchError: every child of a level failed.
    """
    with opened(folder, config), TrialStore(folder / TRIALS) as store:
        display.note(heading(config))
        if len(store.levels()) < config.blocks:
            warm_kernels(config, data.image_shape, display.note)
        devices, _ = choose_devices(
            config, data, lambda: display.note("trying how many children a GPU should train at once")
        )
        display.note(describe_devices(devices))
        with (
            shared_data(data, folder) as shared,
            WorkerPool(devices, config, folder, shared) as pool,
            ReportWriter(folder) as report,
        ):
            evaluator = Evaluator(config, folder, store, pool, display, profiled)
            run_levels(config, store, evaluator, len(devices), display, report)
        if profiled is not None:
            display.note(_trace_text(folder, profiled, evaluator.traced))
        discard_all(folder)
    return SearchResult.load(folder)


def _trace_text(folder: Path, profiled: Profiled, position: int | None) -> str:
    if position is None:
        return f"--profile {profiled.text}: no child that was trained now is that, nothing was traced"
    return f"--profile {profiled.text}: {trace_file(folder, position)}, for https://ui.perfetto.dev"


def heading(config: SearchConfig) -> str:
    """The first line of a search: what runs where."""
    return (
        f"pnas_fast {VERSION} · {config.data} · B {config.blocks}, K {config.beam}, N {config.repeats}, "
        f"F {config.filters}, {config.epochs} epochs · {config.device}, {config.backend} kernels"
    )
