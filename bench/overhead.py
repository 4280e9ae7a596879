"""The share of a child's time that is not forward, backward or optimiser, and that of a whole search.

    python bench/overhead.py [--backend eager] [--children 8] [--search]

Two processes side by side train random children of the quick preset, on one thread each, as a search's
workers do on two cores. A child's time is all that a worker spends on it: building the network, training,
evaluation, saving weights. Forward is that of the network, while evaluated too, and the loss; backward is
autograd's; the optimiser is its step and the clipping before it. On the cpu backend all steps but the first
two are replays, which are the three together and making the batch. Shares are ratios within one process: a
busy machine hardly changes them.

With ``--search`` the quick preset is searched as well, by the command. Its share is of the command's wall
time times workers, and is what is not training steps: evaluation, start-up, surrogate, report, waiting. It
has no limit.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pnas_fast.data import load
from pnas_fast.engine.optimizer import SGD
from pnas_fast.evaluation import train_child
from pnas_fast.kernels.recording import Recording
from pnas_fast.network import ChildNetwork
from pnas_fast.runs.folder import TRIALS
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import child_file, save_child
from pnas_fast.search.config import quick
from pnas_fast.search.preflight import random_cell

PARTS: dict[str, list[tuple[Any, str]]] = {
    "forward": [(ChildNetwork, "forward"), (nn.functional, "cross_entropy")],
    "backward": [(Tensor, "backward")],
    "optimiser": [(SGD, "step")],
    "replays": [(Recording, "replay")],
}
LIMIT = 0.10

Seconds = dict[str, float]


@contextmanager
def clocked(seconds: Seconds) -> Iterator[None]:
    """Add up the time spent in the parts."""
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), part, seconds)))
        yield


def timed(function: Callable[..., Any], part: str, seconds: Seconds) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds[part] += time.perf_counter() - started

    return call


def train(arguments: tuple[str, int, int]) -> list[Seconds]:
    """Seconds of each part, and in all, of children that one process trains; the first is not counted."""
    backend, children, seed = arguments
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config = replace(quick(), backend=backend, device="cpu", precision="fp32")
    data, generator = load(config.data), random.Random(seed)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for position in range(children + 1):
            cell = random_cell(1 + position % config.blocks, config.operations, generator)
            seconds = dict.fromkeys(PARTS, 0.0)
            started = time.perf_counter()
            with clocked(seconds):
                result, network = train_child(cell, config, data, seed)
            assert network is not None, result.error
            save_child(network, data, child_file(Path(folder), position))
            found.append(seconds | {"in all": time.perf_counter() - started})
    return found[1:]


def search(backend: str) -> None:
    """Print the share of a whole search's time that is not training steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pnas_fast.search", "--preset", "quick", "--device", "cpu"]
        command += ["--backend", backend, "--workers", "2", "--out", folder]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        with TrialStore(Path(folder) / TRIALS) as store:
            trials = [trial for trial in store.trials() if trial.done]
    steps = sum(trial.value("images_seen") / trial.value("images_per_second") for trial in trials)
    evaluation = sum(trial.value("evaluation_seconds") for trial in trials)
    print(
        f"search     {1 - steps / (2 * wall):7.1%}   (evaluation {evaluation / (2 * wall):.1%}, "
        f"{wall:.1f} s, {len(trials)} children)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", default="cpu", choices=("cpu", "eager"))
    parser.add_argument("--children", type=int, default=8, help="of each process (default: 8)")
    parser.add_argument("--search", action="store_true", help="search as well")
    options = parser.parse_args()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [(options.backend, options.children, seed) for seed in (0, 1)]
        found = [seconds for part in pool.map(train, tasks) for seconds in part]
    whole = sum(child["in all"] for child in found)
    shares = {part: sum(child[part] for child in found) / whole for part in PARTS}
    for part, share in shares.items():
        print(f"{part:10} {share:7.1%}")
    each = [1 - sum(child[part] for part in PARTS) / child["in all"] for child in found]
    other = 1 - sum(shares.values())
    print(f"{'other':10} {other:7.1%}   (single children: {min(each):.1%} to {max(each):.1%})")
    if options.search:
        search(options.backend)
    raise SystemExit(0 if other <= LIMIT else f"allowed is {LIMIT:.0%}")


if __name__ == "__main__":
    main()
