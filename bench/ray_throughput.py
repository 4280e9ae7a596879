"""What a search's driver can serve on Ray: children that do nothing, as fast as they come.

    python bench/ray_throughput.py [--slots 4] [--children 2000]
    python bench/ray_throughput.py --slots 1000 --children 20000 --stand-ins

It starts a Ray of its own on this machine with so many slots, whatever the number of its cores, runs a search
of children that return at once, every one of them committed to a store as a search's is, and says how many
finished a second, what the driver's own process spent on each, and how many bytes of JSON each took.

A slot is a process, of which a machine holds few. With ``--stand-ins`` slots are asked within the driver's
own process, and answer through Ray's object store: all that the driver does for so many slots is done, and
what its process takes is an upper bound, for it does the slots' part as well. There is no network.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from pnas_fast.data import as_source, load
from pnas_fast.engine import TrainingSettings
from pnas_fast.executors.messages import encode_measurement, encode_task
from pnas_fast.executors.ray_cluster import Demand, connected
from pnas_fast.executors.ray_slot import Slot
from pnas_fast.protocols import Context, Event, Finished, Measurement, Proposal, Spec, Started
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.driver import Driver
from pnas_fast.space import OPERATIONS, Cell
from pnas_fast.strategies.random import Random

SPEC = Spec("ray_throughput:Nothing", {})


class Nothing:
    """Answers at once, with as many numbers as a trained child gives."""

    identity = "nothing"

    def effort(self, cell: Cell) -> float:
        return 0.0

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        values = {f"value_{number}": context.seed / 3**number for number in range(11)}
        return Measurement(
            "done", values | {"accuracy": 0.5, "process": os.getpid()}, curves={"loss": (0.5,) * 20}
        )


class StandIn:
    """An actor's handle whose calls are done at once by a slot in this process; its answers are Ray's."""

    def __init__(self, slot: Slot) -> None:
        for name in ("begin", "measure", "look", "leave", "empty"):
            setattr(self, name, _Method(getattr(slot, name)))


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def options(self, **_: Any) -> _Method:
        return self

    def remote(self, *arguments: Any) -> Any:
        return ray.put(self._call(*arguments))


def use_stand_ins() -> None:
    """Have executors of this process take such slots in place of actors, all of them one."""
    from pnas_fast.executors.ray_seat import RaySeat

    slot = Slot("stand-ins", os.getcwd(), [])
    RaySeat.ask_for = lambda *_: RaySeat(StandIn(slot))  # type: ignore[method-assign]


class Clock:
    """Counts from when so many processes have had a child, so that starting is left out."""

    def __init__(self, processes: int) -> None:
        self._processes, self._seen, self.children, self.bytes = processes, set[int](), 0, 0
        self.began = self.cpu = 0.0

    def on(self, event: Event) -> None:
        match event:
            case Started(task) if self.began:
                self.bytes += len(json.dumps(encode_task(task)))
            case Finished(_, measurement) if self.began:
                self.children += 1
                self.bytes += len(json.dumps(encode_measurement(measurement)))
            case Finished(_, measurement):
                self._seen.add(int(measurement.values["process"]))
                if len(self._seen) == self._processes:
                    self.began, self.cpu = time.perf_counter(), time.process_time()
            case _:
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--children", type=int, default=2000)
    parser.add_argument("--stand-ins", action="store_true", help="slots without processes of their own")
    given = parser.parse_args()
    settings = TrainingSettings(device="cpu", backend="eager")
    clock = Clock(1 if given.stand_ins else given.slots)
    with connected("local", given.slots), tempfile.TemporaryDirectory() as scratch:
        from pnas_fast.executors.ray_executor import RayExecutor

        if given.stand_ins:
            use_stand_ins()
        with (
            TrialStore(Path(scratch, "trials.sqlite"), write=True) as store,
            RayExecutor(Demand.of("cpu", 1, 1), "cpu", Path(scratch), settings) as executor,
        ):
            executor.start(SPEC, as_source(load("digits")))
            strategy = Random(5, OPERATIONS, given.children, 20, 0)
            Driver(strategy, "random", Nothing(), executor, store, 0, clock.on).run()
            seconds, cpu = time.perf_counter() - clock.began, time.process_time() - clock.cpu
    print(f"{given.slots} slots, {clock.children} children that do nothing in {seconds:.1f} s, all committed")
    print(f"{clock.children / seconds:.0f} children a second")
    print(f"{1000 * cpu / clock.children:.2f} ms of the driver's process a child")
    print(f"{clock.bytes / clock.children:.0f} bytes of JSON a child, there and back")


if __name__ == "__main__":
    main()
