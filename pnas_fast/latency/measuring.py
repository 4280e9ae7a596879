"""Timing networks on this machine."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from pnas_fast.export.providers import PROVIDERS
from pnas_fast.latency.folder import Progress, check_layout, fill_folder, network_of
from pnas_fast.latency.networks import Chosen
from pnas_fast.latency.time_networks import (
    ROUNDS,
    Run,
    Sessions,
    TimingError,
    clock_of,
    this_machine,
    time_folder,
    time_in_turns,
)
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.device import DeviceError, DeviceFile, Times
from pnas_fast.space import Cell
from pnas_fast.threads import torch_threads

_DEVICES = {"cpu": "cpu", "cuda": "cuda", PROVIDERS["cpu"]: "cpu", PROVIDERS["cuda"]: "cuda"}
"""What ``--device`` calls a provider of either runtime."""


@dataclass(frozen=True, slots=True)
class Way:
    """How networks are timed on this machine.

    Attributes:
        runtime: ``onnxruntime``, on exported files, or ``torch``, eager.
        device: ``cpu`` or ``cuda``.
        threads: of the CPU.
        rounds: turns of each network.
    """

    runtime: str
    device: str
    threads: int
    rounds: int = ROUNDS


Bars = Callable[[str], AbstractContextManager[Progress]]
"""Gives, for what is being done, what is told how far it is."""


@contextmanager
def _no_bar(what: str) -> Iterator[Progress]:
    yield lambda done, total: None


def time_cells(chosen: Sequence[Chosen], deployment: Deployment, way: Way, bars: Bars = _no_bar) -> Times:
    """The networks of cells, timed here.

    Args:
        chosen: the cells.
        deployment: what networks are made of them.
        way: how they run.
        bars: shows how many networks are built, and how many turns done.

    Raises:
        DeviceError: the way is not to be had on this machine, or a network is refused.
        ExportError: the layout is too large (`check_layout`).
    """
    if way.runtime == "torch":
        found = _time_torch(chosen, deployment, way, bars)
    else:
        found = _time_onnx(chosen, deployment, way, bars)
    try:
        return msgspec.convert(found, type=Times)
    except msgspec.ValidationError as error:  # such as a time of 0 by a coarse clock
        raise DeviceError(f"this machine's times cannot be used: {error}") from error


def measure_cells(cells: Sequence[Cell], device: DeviceFile, rounds: int = ROUNDS) -> list[float]:
    """The milliseconds of cells' networks, measured here in the way in which the device's file was.

    Raises:
        DeviceError: this is another machine (`is_here`), or the way is not to be had any more.
        ExportError: a network that is too large for a file.
    """
    if not is_here(device):
        raise DeviceError(f"times of {device.device.name} cannot be measured here, it is another machine")
    there = device.device
    way = Way(there.runtime, _DEVICES[there.provider], there.threads, rounds)
    found = time_cells([Chosen(cell, held_out=True) for cell in cells], device.layout, way)
    return [network.fastest for network in found.networks]


def is_here(device: DeviceFile) -> bool:
    """Whether this machine looks like the one that a file is of, by name, system and cores."""
    there = device.device
    if there.provider not in _DEVICES:
        return False
    kind = _DEVICES[there.provider]
    if kind == "cuda" and not torch.cuda.is_available():
        return False
    here = this_machine(_name(kind))
    return (here["name"], here["system"], here["cores"]) == (there.name, there.system, there.cores)


def _name(kind: str) -> str:
    """Of a device where it is not the processor; else empty."""
    if kind == "cpu":
        return ""
    if not torch.cuda.is_available():
        raise DeviceError("device cuda: PyTorch finds no GPU here")
    return torch.cuda.get_device_name()


def _time_torch(chosen: Sequence[Chosen], deployment: Deployment, way: Way, bars: Bars) -> dict[str, Any]:
    name = _name(way.device)
    check_layout(deployment)
    runs: list[Run] = []
    shape = (deployment.batch, *deployment.image_shape)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(way.device)
    with bars("building") as built:
        for index, (cell, _) in enumerate(chosen):
            network = network_of(cell, deployment).to(way.device)
            network.arrange()
            runs.append(_run(network, images))
            built(index + 1, len(chosen))
    clock, read = clock_of(way.device == "cpu" and way.threads == 1)
    device = {
        **this_machine(name),
        "runtime": "torch",
        "provider": way.device,
        "threads": way.threads,
        "clock": clock,
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
    }
    with torch.inference_mode(), torch_threads(way.threads), bars("timing") as timed:
        times = time_in_turns(runs.__getitem__, len(runs), way.rounds, timed, read)
    networks = [
        {"cell": str(cell), "held_out": held_out, "ms": ms}
        for (cell, held_out), ms in zip(chosen, times, strict=True)
    ]
    return {"deployment": str(deployment), "device": device, "networks": networks}


def _run(network: Callable[[torch.Tensor], Any], images: torch.Tensor) -> Run:
    def run() -> None:
        network(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return run


def _time_onnx(chosen: Sequence[Chosen], deployment: Deployment, way: Way, bars: Bars) -> dict[str, Any]:
    name, provider = _name(way.device), PROVIDERS[way.device]
    try:
        Sessions([], provider, way.threads)  # refused before anything is built
        with tempfile.TemporaryDirectory() as folder:
            with bars("building") as built:
                fill_folder(Path(folder), chosen, deployment, built)
            with bars("timing") as timed:
                return time_folder(Path(folder), provider, way.threads, way.rounds, name, timed)
    except TimingError as error:
        raise DeviceError(str(error)) from error
