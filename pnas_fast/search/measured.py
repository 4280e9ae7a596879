"""The front of a search for latency, measured where the device is at hand: a table only predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pnas_fast.export.errors import ExportError
from pnas_fast.objectives.aims import Aims
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.device import DeviceError
from pnas_fast.protocols import Trial
from pnas_fast.search.config import SearchConfig
from pnas_fast.search.device_file import device_of

NOTE = "front_latency"
"""The kept note of milliseconds by the numbers of trials."""

ROUNDS = 3


def measure_front(
    config: SearchConfig, deployment: Deployment, aims: Aims, trials: Iterable[Trial],
    say: Callable[[str], None],
) -> dict[str, float]:  # fmt: skip
    """Milliseconds of the networks of a front, by the numbers of their trials; empty where none can be taken.

    Nothing is chosen by them: a search reads latencies off its table, which is the same whenever it is run.
    """
    if not config.device_file:
        return {}
    # Here, because it needs packages that a search does without.
    from pnas_fast.latency.measuring import is_here, measure_cells

    device = device_of(config.device_file, deployment)
    if not is_here(device):
        say(f"latencies are those of the table: {device.device.name} is not this machine")
        return {}
    front = aims.front(trials)
    say(f"measuring the networks of the front here: {len(front)}")
    try:
        found = measure_cells([trial.cell for trial in front], device, ROUNDS)
    except (DeviceError, ExportError) as error:
        say(f"latencies are those of the table: {error}")
        return {}
    return {str(trial.number): ms for trial, ms in zip(front, found, strict=True)}
