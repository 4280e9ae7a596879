"""A made-up search on a cluster: its children log where they begin, and wait while a file is there.

    python ray_children.py ADDRESS FOLDER CHILDREN

runs one in a process of its own, which can be killed; it tells what it says and what happens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from faulty import Source
from made_up import OPERATIONS, MadeUp
from pnas_fast.engine import TrainingSettings
from pnas_fast.executors.ray_cluster import Demand, connected
from pnas_fast.protocols import Context, Event, Finished, Measurement, Proposal, Spec, Started
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.driver import Driver
from pnas_fast.space import Cell
from pnas_fast.strategies.random import Random

HOLD = "hold"
"""While this file is there children wait; while one with a child's number behind is there, that one does."""

STORE, SAID = "store", "said"
"""Files of a search that runs in a process of its own."""

SETTINGS = TrainingSettings(device="cpu", backend="eager", train_images=128, time_limit=60.0)


def logging_spec(folder: Path) -> Spec:
    return Spec("ray_children:Logging", {"folder": str(folder)})


class Logging:
    identity = MadeUp.identity

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def effort(self, cell: Cell) -> float:
        return len(cell)

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        import ray

        entry = [context.number, ray.get_runtime_context().get_node_id(), os.getpid()]
        with (self._folder / "log").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        holds, seen = [self._folder / HOLD, self._folder / f"{HOLD}-{context.number}"], 0
        while any(hold.exists() for hold in holds):
            seen += 1
            context.report(seen)
            time.sleep(0.02)
        (context.folder / "left").mkdir(exist_ok=True)
        (context.folder / "left" / str(context.number)).write_text(str(proposal.cell))
        return MadeUp().measure(proposal, context)


def begun(folder: Path) -> list[tuple[int, str, int]]:
    """(child, node, process) of every beginning."""
    return [tuple(entry) for entry in _entries(folder / "log")]


def said(folder: Path) -> list[tuple[str, Any]]:
    """What a search in a process of its own has told: ``started`` and ``finished`` children, and lines."""
    return [tuple(entry) for entry in _entries(folder / SAID)]


def _entries(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def executor(folder: Path, settings: TrainingSettings = SETTINGS, **more: Any) -> Any:
    from pnas_fast.executors.ray_executor import RayExecutor

    return RayExecutor(Demand.of("cpu", 1, 1), "cpu", folder, settings, **more)


def random_of(budget: int) -> Random:
    return Random(2, OPERATIONS, budget, 2, 0)


def main(address: str, folder: Path, children: int) -> None:
    def tell(what: str, of: Any) -> None:
        with (folder / SAID).open("a") as file:
            file.write(json.dumps([what, of]) + "\n")

    def on(event: Event) -> None:
        if isinstance(event, Started | Finished):
            tell(type(event).__name__.lower(), event.task.number)

    with (
        connected(address),
        TrialStore(folder / STORE, write=True) as store,
        executor(folder, say=lambda text: tell("line", text)) as made,
    ):
        made.start(logging_spec(folder), Source())
        Driver(random_of(children), "random", MadeUp(), made, store, 0, on).run()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
