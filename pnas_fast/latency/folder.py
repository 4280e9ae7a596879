"""A folder of ONNX files to be timed on another machine, with the script that does it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import onnx
import torch

from pnas_fast.export.image_format import of_model
from pnas_fast.export.model_file import Form, build, check_size, fix_batch
from pnas_fast.files import scratch, write_text
from pnas_fast.latency.networks import Chosen
from pnas_fast.latency.time_networks import MANIFEST, SCRIPT
from pnas_fast.network.child import ChildNetwork
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.device import DeviceError
from pnas_fast.space import MAX_BLOCKS, Block, Cell
from pnas_fast.version import VERSION

Progress = Callable[[int, int], None]


_HEAVIEST = Cell((Block(0, "conv1x7_7x1", 1, "conv1x7_7x1"),) * MAX_BLOCKS)


def check_layout(deployment: Deployment) -> None:
    """Refuse a layout that is too large before anything of it is built.

    Raises:
        ExportError: the largest network would be too large for a file, or a batch of images for memory.
    """
    with torch.device("meta"):
        check_size(_built(_HEAVIEST, deployment), "fp32")
    of_model(None, deployment.image_shape).check_batch(deployment.batch)


def network_of(cell: Cell, deployment: Deployment) -> ChildNetwork:
    """The network of a cell as it will be deployed, with the same random weights each time, to evaluate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _built(cell, deployment)


def _built(cell: Cell, deployment: Deployment) -> ChildNetwork:
    shape, classes = deployment.image_shape, deployment.classes
    network = ChildNetwork(cell, deployment.repeats, deployment.filters, classes, shape)
    network.eval()
    return network


def model_of(cell: Cell, deployment: Deployment) -> onnx.ModelProto:
    """That network as an export writes it, for the deployment's batch.

    Raises:
        ExportError: it is too large for a file.
    """
    network = network_of(cell, deployment)
    model = build(network, of_model(None, network.image_shape), Form(batch=deployment.batch))
    fix_batch(model, deployment.batch)
    return model


def write_folder(folder: Path, chosen: Sequence[Chosen], deployment: Deployment, progress: Progress) -> None:
    """Write the networks' files, their manifest and the script; the folder appears whole or not at all.

    Raises:
        DeviceError: the folder is there already.
        ExportError: a network that is too large for a file.
        OSError: it cannot be written.
    """
    if folder.exists():
        raise DeviceError(f"{folder}: is there already, expected a new name")
    with scratch(folder) as temporary:
        fill_folder(temporary, chosen, deployment, progress)
        shutil.move(temporary, folder)


def fill_folder(folder: Path, chosen: Sequence[Chosen], deployment: Deployment, progress: Progress) -> None:
    """As `write_folder`, into a folder that is there."""
    check_layout(deployment)
    networks = []
    for index, (cell, held_out) in enumerate(chosen):
        name = f"{index:03}.onnx"
        onnx.save(model_of(cell, deployment), folder / name)
        networks.append({"file": name, "cell": str(cell), "held_out": held_out})
        progress(index + 1, len(chosen))
    manifest = {"deployment": str(deployment), "pnas_fast": VERSION, "networks": networks}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    script = resources.files("pnas_fast.latency").joinpath(SCRIPT).read_text(encoding="utf-8")
    write_text(folder / SCRIPT, script)
