"""What a search's driver can serve on Ray: children that do nothing, as fast as they come.

    python bench/ray_throughput.py [--slots 4] [--children 2000]

It starts a Ray of its own on this machine with so many slots, whatever the number of its cores, runs a search
of children that return at once, every one of them committed to a store as a search's is, and says how many
finished a second, what the driver's own process spent on each, and how many bytes of JSON each took.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from pnas_fast.data import as_source, load
from pnas_fast.engine import TrainingSettings
from pnas_fast.executors.messages import encode_measurement, encode_task
from pnas_fast.executors.ray_cluster import Demand, connected
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


class Clock:
    """Counts from when every slot has had a child, so that starting is left out."""

    def __init__(self, slots: int) -> None:
        self._slots, self._seen, self.children, self.bytes = slots, set[int](), 0, 0
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
                if len(self._seen) == self._slots:
                    self.began, self.cpu = time.perf_counter(), time.process_time()
            case _:
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--children", type=int, default=2000)
    given = parser.parse_args()
    settings, clock = TrainingSettings(device="cpu", backend="eager"), Clock(given.slots)
    with connected("local", given.slots), tempfile.TemporaryDirectory() as scratch:
        from pnas_fast.executors.ray_executor import RayExecutor

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
