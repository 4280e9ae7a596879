"""Weights of children: safetensors files that say what network they belong to."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from pnas_fast.data import DataSet
from pnas_fast.files import replacing
from pnas_fast.network import CellNetwork, Genotype, Layout

CHILDREN = "children"
BEST = "best.safetensors"


class WeightsError(ValueError):
    """A weights file that cannot be used."""


def child_file(folder: Path, position: int) -> Path:
    """Where a run keeps the weights of the child at a position until it knows whether it is the best."""
    return folder / CHILDREN / f"{position}.safetensors"


def save_child(network: CellNetwork, data: DataSet, path: Path) -> None:
    """Write a child's weights, with what `load_child` needs to build it again.

    An auxiliary classifier, which serves training alone, is left out.
    """
    network_arguments = {
        "normal": str(network.genotype.normal),
        "reduction": str(network.genotype.reduction),
        "layout": asdict(network.layout),
        "classes": data.classes,
        "image_shape": list(data.image_shape),
    }
    # One entry: with several, their order in the file would differ from run to run.
    metadata = {"network": json.dumps(network_arguments)}
    state = {
        name: tensor.contiguous().cpu()
        for name, tensor in network.state_dict().items()
        if not name.startswith("auxiliary.")
    }
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, metadata))


def load_child(path: Path | str, backend: str = "eager") -> CellNetwork:
    """The network of a weights file, such as a run's ``best.safetensors``, with its weights.

    Raises:
        WeightsError: not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    if "network" not in metadata:
        raise WeightsError(f"{path}: metadata names no network, expected that of a child's weights")
    try:
        arguments = json.loads(metadata["network"])
        genotype = Genotype.parse(arguments.pop("normal"), arguments.pop("reduction"))
        network = CellNetwork(genotype, Layout(**arguments.pop("layout")), **arguments, backend=backend)
        network.load_state_dict(state)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{path}: not the weights of a network that can be built ({error})") from error
    return network


def promote(folder: Path, position: int) -> None:
    """Make the weights of the child at a position the run's best; nothing happens where that was done."""
    path = child_file(folder, position)
    if path.exists():
        path.replace(folder / BEST)


def discard(folder: Path, position: int) -> None:
    """Remove the weights of a child that is not the best."""
    child_file(folder, position).unlink(missing_ok=True)


def discard_all(folder: Path) -> None:
    """Remove the weights of all children but the best."""
    shutil.rmtree(folder / CHILDREN, ignore_errors=True)


def digest(path: Path | str) -> str:
    """The SHA-256 of a weights file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
