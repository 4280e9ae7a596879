"""A search's executor on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataSet
from pnas_fast.executors.ray_cluster import AUTO, LOCAL, Demand, Wish
from pnas_fast.foreign import printable
from pnas_fast.protocols import Executor
from pnas_fast.search.config import TABLE, SearchConfig


def wish_of(executor: str, address: str, most: int, config: SearchConfig) -> Wish | None:
    """What a program wants of a cluster; None where children train on this machine.

    Raises:
        ConfigError: a value that is not allowed, or a search that trains nothing in workers.
    """
    if executor not in (LOCAL, "ray"):
        raise ConfigError(f"executor is {printable(executor[:80])!r}, allowed are {LOCAL} and ray")
    if executor == LOCAL:
        if address != AUTO or most:
            raise ConfigError(f"ray_address and max_children with executor {LOCAL}, allowed is ray")
        return None
    if config.evaluator.startswith((TABLE, "__main__:")):
        raise ConfigError(
            f"executor ray with evaluator {config.evaluator}, allowed are those that other hosts can make"
        )
    return Wish(address, most)


def ray_executor(
    config: SearchConfig, data: DataSet, folder: Path, wish: Wish, say: Callable[[str], None]
) -> Executor:
    """The executor on the cluster that this process is connected to.

    Args:
        config: resolved.
        data: the data set, in the CPU's memory.
        folder: of the run.
        wish: what is wanted of the cluster.
        say: is given lines for people.
    """
    # Here, since it imports Ray.
    from pnas_fast.executors.ray_executor import RayExecutor

    # Slots are processes, which take turns on a GPU: more of them gain little.
    demand = Demand.of(config.device, config.threads, config.children_per_gpu or 1)
    most = f"at most {wish.most} slots" if wish.most else "a slot for every place that its nodes have"
    share = f", {demand.gpus:g} of a GPU" if demand.gpus else ""
    say(f"Ray cluster at {wish.address}: {most}, each of {demand.cpus} CPU{share}")
    return RayExecutor(demand, config.device, folder, config, wish.most, say)
