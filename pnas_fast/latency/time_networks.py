"""Time the ONNX files of this folder with ONNX Runtime, and write times.json beside them.

It needs Python, onnxruntime and numpy, nothing else: copy the folder to the device and run

    python time_networks.py

there, with nothing beside it. What it writes goes back to where the folder was made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MANIFEST, TIMES, SCRIPT = "networks.json", "times.json", "time_networks.py"

ROUNDS = 10
"""Turns that every network has."""

REPEATS = 3
"""Timed runs of a turn, of which the fastest counts, after one that does not."""

MOST_OPEN, MOST_THREADS = 2_000_000_000, 4096
"""Bytes of files that are held open together, and their threads: where they are more, each file is opened
for its turn alone."""

CPU = "CPUExecutionProvider"

QUIET = 4
"""ONNX Runtime's level of messages: what ends the program."""

FINE = 1e-6
"""Seconds: steps of a clock that times can be read off."""

PROCESSOR, WALL = "processor", "wall"
"""Clocks."""

Run = Callable[[], Any]
Progress = Callable[[int, int], None]


class TimingError(Exception):
    """Networks cannot be timed here; the message is one line."""


def time_in_turns(
    opened: Callable[[int], Run],
    count: int,
    rounds: int,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each network in each round.

    All have their turn before any has the next: what slows the machine for a while slows all of them.

    Args:
        opened: gives the network with that index, ready to run.
        count: networks.
        rounds: turns of each.
        progress: told of turns done, and of all.
        clock: seconds.
    """
    times: list[list[float]] = [[] for _ in range(count)]
    for turn in range(rounds):
        for index in range(count):
            run = opened(index)
            run()
            times[index].append(1e3 * min(_seconds(run, clock) for _ in range(REPEATS)))
            progress(turn * count + index + 1, rounds * count)
    return times


def _seconds(run: Run, clock: Callable[[], float]) -> float:
    started = clock()
    run()
    return clock() - started


class Sessions:
    """ONNX files, ready to run on noise; all stay open where `MOST_OPEN` and `MOST_THREADS` allow.

    Args:
        paths: of files with one input of a fixed shape, float32.
        provider: ONNX Runtime's name of what runs them.
        threads: of a CPU.

    Raises:
        TimingError: no ONNX Runtime, no such provider, or a file that is refused.
    """

    def __init__(self, paths: Sequence[Path], provider: str, threads: int) -> None:
        try:
            import numpy
            import onnxruntime
        except ImportError as error:
            raise TimingError(f"{error}; install onnxruntime and numpy") from error
        self._numpy, self._runtime = numpy, onnxruntime
        self.version: str = onnxruntime.__version__
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise TimingError(f"provider {provider}: this ONNX Runtime has {' '.join(available)}")
        self._paths, self._provider, self._threads = paths, provider, threads
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise TimingError(f"{missing[0]}: no such file, the manifest names it")
        size = sum(path.stat().st_size for path in paths)
        self._stay = size <= MOST_OPEN and threads * len(paths) <= MOST_THREADS
        self._open: dict[int, Run] = {}

    def __call__(self, index: int) -> Run:
        """The network with that index."""
        if index not in self._open:
            if not self._stay:
                self._open.clear()
            self._open[index] = self._load(self._paths[index])
        return self._open[index]

    def _load(self, path: Path) -> Run:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = QUIET
        providers = list(dict.fromkeys([self._provider, CPU]))
        try:
            session = self._runtime.InferenceSession(str(path), options, providers=providers)
            taken = session.get_inputs()[0]
            images = self._numpy.random.default_rng(0).standard_normal(taken.shape, self._numpy.float32)
            session.run(None, {taken.name: images})
        except Exception as error:
            raise TimingError(
                f"{path}: ONNX Runtime refuses it ({' '.join(str(error).split())[:200]})"
            ) from error
        if session.get_providers()[0] != self._provider:
            raise TimingError(f"provider {self._provider} did not start, {session.get_providers()[0]} did")
        return lambda: session.run(None, {taken.name: images})


def clock_of(alone: bool) -> tuple[str, Callable[[], float]]:
    """What times are read off, and its name: of a thread that runs alone its processor's time.

    With nothing beside that is the wall clock's, but programs that take turns with the thread do not stretch
    it. Where a system counts it in coarse steps, and for anything but one thread, it is the wall clock.
    """
    if alone and time.get_clock_info("process_time").resolution <= FINE:
        return PROCESSOR, time.process_time
    return WALL, time.perf_counter


def this_machine(name: str = "") -> dict[str, Any]:
    """What times depend on and a program can see: name, system, cores, the load as it begins."""
    return {
        "name": name or processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "load": load(),
    }


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """Processes that ran or waited over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def disturbed() -> str | None:
    """A line for people where other programs run beside; None where they do not, or nobody knows."""
    busy = load()
    if busy is None or busy <= 0.5 * cores():
        return None
    return f"other programs run here (load {busy} on {cores()} cores): expect times that are too long"


def time_folder(
    folder: Path, provider: str, threads: int, rounds: int, name: str, progress: Progress
) -> dict[str, Any]:
    """What times.json holds: the networks' layout, how and where they were timed, their cells and times.

    Args:
        folder: of files and their manifest.
        provider: ONNX Runtime's name of what runs them.
        threads: of the CPU.
        rounds: turns of each.
        name: of the device; empty is the processor's.
        progress: told of turns done, and of all.

    Raises:
        TimingError: no folder of files to time, or ONNX Runtime refuses.
    """
    manifest = read_manifest(folder / MANIFEST)
    sessions = Sessions([folder / network["file"] for network in manifest["networks"]], provider, threads)
    clock, read = clock_of(provider == CPU and threads == 1)
    device = {
        **this_machine(name),
        "runtime": "onnxruntime",
        "provider": provider,
        "threads": threads,
        "clock": clock,
        "versions": {"onnxruntime": sessions.version, "python": platform.python_version()},
    }
    times = time_in_turns(sessions, len(manifest["networks"]), rounds, progress, read)
    timed = [
        {"cell": network["cell"], "held_out": network["held_out"], "ms": times[index]}
        for index, network in enumerate(manifest["networks"])
    ]
    return {"deployment": manifest["deployment"], "device": device, "networks": timed}


def read_manifest(path: Path) -> dict[str, Any]:
    """What a folder's manifest says.

    Raises:
        TimingError: it is missing or none.
    """
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for network in manifest["networks"]:
            if not isinstance(network["file"], str) or not {"cell", "held_out"} <= set(network):
                raise ValueError("a network without file, cell or held_out")
        if not isinstance(manifest["deployment"], str):
            raise ValueError("no deployment")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TimingError(f"{path}: not the manifest of a folder to time ({error})") from error
    return manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the folder that this file lies in; its exit status: 0 done, 2 it cannot be timed."""
    parser = argparse.ArgumentParser(description="Time the ONNX files of this folder; writes times.json.")
    parser.add_argument("--provider", default=CPU, metavar="NAME", help=f"of ONNX Runtime [{CPU}]")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N", help="of the CPU [one a core]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns of each [{ROUNDS}]")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.rounds < 1:
        parser.error("--threads and --rounds are 1 or more")
    folder = Path(__file__).resolve().parent
    if told := disturbed():
        print(told, file=sys.stderr)
    try:
        found = time_folder(folder, options.provider, options.threads, options.rounds, "", _counted)
        temporary = folder / f".{TIMES}.tmp"
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / TIMES)
    except KeyboardInterrupt:
        print(f"\n{SCRIPT}: stopped, nothing was written", file=sys.stderr)
        return 130
    except (TimingError, OSError) as error:
        print(f"{SCRIPT}: error: {error}", file=sys.stderr)
        return 2
    print(f"\n{folder / TIMES}")
    return 0


def _counted(done: int, total: int) -> None:
    print(f"\rtimed {done} of {total}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
