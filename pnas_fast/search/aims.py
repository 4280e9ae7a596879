"""What the cells of a configuration are to be good at: the one place that knows where costs come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pnas_fast.cli.options import ConfigError
from pnas_fast.objectives.aims import Aims, aims_of
from pnas_fast.objectives.counted import counted
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.limits import ACCURACY, COSTS, parse_limits
from pnas_fast.objectives.memory import Memory
from pnas_fast.protocols import Cost
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.device_file import device_of


def deployment_of(config: SearchConfig, image_shape: Sequence[int], classes: int) -> Deployment:
    """The network that a configuration's cells are for: its child, but for what it says of another."""
    return Deployment.of(config.deploy, config.repeats, config.filters, image_shape, classes)


def costs_of(config: SearchConfig, deployment: Deployment) -> dict[str, Cost]:
    """Costs of cells by their names; empty where a configuration asks for none and deploys the child.

    Raises:
        ConfigError: latency without a device's file, or a file that is about other networks.
    """
    wanted = [COSTS[name] for name in config.objectives if name != ACCURACY]
    wanted += [bound.name for bound in parse_limits(config.limit)]
    if not wanted and not config.deploy and not config.device_file:
        return {}
    try:
        costs: dict[str, Cost] = dict(counted(deployment))
    except ValueError as error:
        raise ConfigError(f"deploy {deployment}: {error}") from error
    if config.device_file:
        costs["latency_ms"] = device_of(config.device_file, deployment).cost()
    elif "latency_ms" in wanted:
        raise ConfigError(
            "latency_ms is not known without --device-file, which python -m pnas_fast.latency measure writes"
        )
    if "memory_mib" in wanted:
        costs["memory_mib"] = Memory(deployment)
    return costs


def make_aims(config: SearchConfig, costs: Mapping[str, Cost]) -> Aims:
    """What a configuration's cells are to be good at."""
    return aims_of(config.objectives, config.limit, costs)


def notes_on_aims(config: SearchConfig, aims: Aims, deployment: Deployment) -> list[str]:
    """Lines for people: what counts, and what no cell can keep."""
    if not aims:
        return []
    costs = [f"few {name}" for name in config.objectives if name != ACCURACY]
    kept = [f"at most {bound.most:,.12g} {bound.name}" for _, bound in aims.limits]
    notes = [f"cells for {', '.join([ACCURACY, *costs, *kept])} of the network {deployment}"]
    for cost, bound in aims.limits:
        least = cost.least(config.blocks, config.operations)
        if least > bound.most:
            notes.append(
                f"NO cell keeps {bound}: the least is {least:,.6g}; what breaks it least is looked for"
            )
    return notes
