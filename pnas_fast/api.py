"""The public functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pnas_fast.search.config import SearchConfig
    from pnas_fast.search.result import SearchResult


def run_search(
    config: SearchConfig | None = None,
    *,
    evaluator: Callable[..., float | dict[str, float]] | None = None,
    data: Any = None,
    out: Path | str | None = None,
    retry_failed: bool = False,
    track: Sequence[str] = (),
    executor: str = "local",
    ray_address: str = "auto",
    max_children: int = 0,
    progress: bool = True,
) -> SearchResult:
    """Search for a cell, or continue a search; the result when it is done.

    Nothing finished is lost when the process dies; calling it again with the same arguments goes on. The
    same configuration gives the same trials at any number of workers.

    Args:
        config: what to do; the ``quick`` preset by default.
        evaluator: your own function ``f(build, data, context) -> float | dict[str, float]`` in place of the
            configuration's; `pnas_fast.evaluation.function` says what it is given. Workers import it by its
            name; one that a notebook defines runs in this process, a child at a time. Change its attribute
            ``version`` when it changes.
        data: a `DataSource`, a `DataSet`, or arrays (images uint8 (n, H, W, C), labels (n,)), in place of the
            configuration's.
        out: the run's folder; by default one under ``runs`` that is named after the configuration.
        retry_failed: train children again that failed before.
        track: trackers that are told what happens, of ``tensorboard``, ``mlflow`` and ``wandb``; each is an
            extra of that name. None of them can stop or slow the search.
        executor: where children train: ``local``, on this machine, or ``ray``, in a Ray cluster, which is an
            extra of that name.
        ray_address: ``auto``, the cluster that this machine is part of; ``local``, one of this search's own;
            or HOST:PORT. Where ``ray.init()`` was called before, its cluster is used.
        max_children: slots that the cluster is asked for at the most, also where there are no nodes for them
            yet; 0 is as many as its nodes have room for.
        progress: show progress on standard output.

    Raises:
        ConfigError: a value this machine cannot serve, a package that is not installed, or no cluster there.
        DataError: a data set that is missing or damaged.
        RunError: a folder that holds another run or something else, or is in use.
        StrategyError, EvaluatorError: the search cannot go on.
        MachineError: the machine is at fault, say a full disk; mend it and call again.
    """
    # Here, so that `import pnas_fast` needs neither PyTorch, nor the compiled module, nor plotting libraries.
    from contextlib import ExitStack
    from dataclasses import replace

    from rich.console import Console

    from pnas_fast.data import as_source
    from pnas_fast.data.augmentation import augmented
    from pnas_fast.engine import settings_source
    from pnas_fast.evaluation.function import name_of
    from pnas_fast.executors.ray_cluster import connected
    from pnas_fast.runs.folder import default_folder
    from pnas_fast.search.config import device_note, quick
    from pnas_fast.search.remote import wish_of
    from pnas_fast.search.run import Search
    from pnas_fast.search.sources import cut
    from pnas_fast.tracking.trackers import check_usable

    check_usable(track)
    asked = config or quick()
    given = None if data is None else as_source(data)
    changes: dict[str, Any] = {} if given is None else {"data": given.name}
    if evaluator is not None:
        # A notebook's own function runs in this process; any other must be one that workers can import.
        is_here = evaluator.__module__ == "__main__"
        changes["evaluator"] = f"__main__:{evaluator.__name__}" if is_here else name_of(evaluator)
    asked = replace(asked, **changes)
    ray = wish_of(executor, ray_address, max_children, asked)
    config = asked.resolved(elsewhere=ray is not None)
    whole = settings_source(config) if given is None else augmented(given, config.flip, config.crop_padding)
    images = cut(whole, config.train_images)
    folder = default_folder(config, images.identity()) if out is None else Path(out)
    note = device_note(asked, config, elsewhere=ray is not None)
    notes = () if note is None else (note,)
    console = Console() if progress else None
    with ExitStack() as stack:
        if ray is not None:
            stack.enter_context(connected(ray.address))
        return Search(
            config, images, folder, console, notes, retry_failed=retry_failed, track=tuple(track), ray=ray
        ).run()
