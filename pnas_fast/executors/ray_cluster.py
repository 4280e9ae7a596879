"""The way to a Ray cluster: whether Ray is here, where the cluster is, and how many children it can hold."""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pnas_fast.cli.options import ConfigError
from pnas_fast.foreign import printable, reason
from pnas_fast.threads import cores

AUTO, LOCAL = "auto", "local"

MOST_SLOTS = 10_000

_KNOCK_SECONDS = 10.0

_EXTRA = "pip install 'pnas_fast[ray]'"
_ADDRESS = re.compile(r"[^\s/:]+:\d{1,5}|\[[^\s/\]]+\]:\d{1,5}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a cluster.

    Attributes:
        address: ``auto``, the one that runs on this machine or that RAY_ADDRESS names; ``local``, one of
            this process's own; or HOST:PORT.
        most: slots that are asked for at most, also where there are no nodes for them yet; 0 is as many as
            the cluster's nodes have places.
    """

    address: str = AUTO
    most: int = 0

    def __post_init__(self) -> None:
        if self.address not in (AUTO, LOCAL) and not _ADDRESS.fullmatch(self.address):
            raise ConfigError(
                f"--ray-address is {printable(self.address[:80])!r}, allowed are {AUTO}, {LOCAL} and "
                "HOST:PORT"
            )
        if not 0 <= self.most <= MOST_SLOTS:
            raise ConfigError(f"--max-children is {self.most}, allowed is a number from 1 to {MOST_SLOTS}")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a slot takes of a node: CPUs and, on a GPU, a share of it."""

    cpus: int
    gpus: float

    @classmethod
    def of(cls, device: str, threads: int, per_gpu: int) -> Demand:
        """That of a slot on a device, where so many have a GPU between them."""
        # Ray counts in ten thousandths: rounded up, the last one would find no room.
        return cls(threads, int(10_000 / per_gpu) / 10_000 if device != "cpu" else 0.0)


def require() -> None:
    """Raise `ConfigError` where Ray is not installed."""
    found = find_spec("ray")
    if found is None or found.origin is None:  # a folder of that name is no package
        raise ConfigError(f"--executor ray: the package ray is not installed; install it with: {_EXTRA}")


@contextmanager
def connected(address: str, cpus: int = 0) -> Iterator[None]:
    """Be a driver of the cluster at an address; where this process is one already, of that which it has.

    Args:
        address: see `Wish`.
        cpus: that a ``local`` cluster believes to have; 0 is those of this process.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster that this process can join.
    """
    require()
    if importlib.import_module("ray").is_initialized():  # by whoever calls this from a program
        yield
        return
    with _handlers_kept():
        ray = _connect(address, cpus)
    try:
        yield
    finally:
        with _handlers_kept(), suppress(Exception):
            ray.shutdown()


def places(demand: Demand) -> int:
    """Slots that the cluster's nodes could hold if nobody else used them."""
    import ray

    free = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(fitting(resources, demand) for resources in free)


def fitting(resources: dict[str, float], demand: Demand) -> int:
    """Slots that a node with such resources could hold."""
    count = int(resources.get("CPU", 0) // demand.cpus)
    if demand.gpus:
        # Slots do not span cards.
        count = min(count, int(resources.get("GPU", 0)) * int(1 / demand.gpus))
    return count


def _connect(address: str, cpus: int) -> Any:
    own = {"num_cpus": cpus or cores(), "include_dashboard": False} if address == LOCAL else {}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    _tame()
    try:
        if address not in (AUTO, LOCAL):
            _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of many kinds, whatever is wrong
        hint = "start one with: ray start --head, or say --ray-address local" if address == AUTO else ""
        raise ConfigError(
            f"--ray-address {address}: no cluster can be used ({printable(reason(error))})"
            + (f"; {hint}" if hint else "")
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


def _tame() -> None:
    """Have Ray leave SIGTERM to whoever handles it, and standard output to this program.

    Where it would say, in colours, that a worker has died, the executor says so.
    """
    utils: Any = importlib.import_module("ray._private.utils")
    worker: Any = importlib.import_module("ray._private.worker")
    for module, name in ((utils, "set_sigterm_handler"), (worker, "print_to_stdstream")):
        if hasattr(module, name):
            setattr(module, name, lambda *arguments, **more: None)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Have signals handled afterwards as before, whatever Ray does about them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
