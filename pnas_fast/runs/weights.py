"""Weights of children: safetensors files that say what network they belong to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pnas_fast.data import DataSet
from pnas_fast.files import replacing
from pnas_fast.foreign import printable, reading
from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.network.layout import Stem

CHILDREN = "children"
BEST = "best.safetensors"


class WeightsError(ValueError):
    """A weights file that cannot be used."""


_Channels = Annotated[int, Meta(ge=1, le=2**20)]
_Side = Annotated[int, Meta(ge=1, le=2**16)]
_Text = Annotated[str, Meta(max_length=2**14)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class _Layout(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields of `Layout`, within limits that no network in its right mind reaches."""

    repeats: Annotated[int, Meta(ge=1, le=100)]
    filters: _Channels
    stem: Stem = "cifar"
    stem_filters: _Channels | None = None
    extra_reductions: bool = False
    skip_reduction_input: bool = False
    always_align: bool = False
    previous_projections: Annotated[int, Meta(ge=0, le=16)] = 1
    final_rectify: bool = True
    classifier_bias: bool = True
    dropout: _Share = 0.0
    norm_epsilon: _Share = 1e-5
    norm_momentum: _Share = 0.1


class _Network(msgspec.Struct, forbid_unknown_fields=True):
    """What a weights file says of its network."""

    normal: _Text
    reduction: _Text
    layout: _Layout
    classes: _Channels
    image_shape: tuple[_Channels, _Side, _Side]


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


def digest(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal digits, by which a run knows its weights again.

    Raises:
        WeightsError: it cannot be read.
    """
    with reading(path, WeightsError, "cannot be read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_child(path: Path | str, backend: str = "eager", expected: str | None = None) -> CellNetwork:
    """The network of a weights file, such as a run's ``best.safetensors``, with its weights.

    Args:
        path: of the file.
        backend: a name in `pnas_fast.kernels.BACKENDS`.
        expected: the file's `digest` when it was written, or several of which it has one, joined by commas;
            None where nobody knows.

    Raises:
        WeightsError: not such a file, another one than was written, or tensors that are not those of the
            network that it says it has.
    """
    if expected is not None and (found := digest(path)) not in expected.split(","):
        raise WeightsError(
            f"{path}: its SHA-256 is {found[:16]}…, expected {expected[:16]}…: it was changed or damaged "
            "since it was written"
        )
    with reading(path, WeightsError, "not a safetensors file"):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    if "network" not in metadata:
        raise WeightsError(f"{path}: metadata names no network, expected that of a child's weights")
    with reading(path, WeightsError, "not the weights of a network that can be built"):
        build = _builder(metadata["network"])
        # First without memory, for metadata that lie.
        with torch.device("meta"):
            _check_tensors(path, build("eager"), state)
        network = build(backend)
        network.load_state_dict(state)
    return network


def _builder(text: str) -> Callable[[str], CellNetwork]:
    """What builds the network that metadata describe, for a backend."""
    arguments = msgspec.json.decode(text, type=_Network)
    genotype = Genotype.parse(arguments.normal, arguments.reduction)
    layout = Layout(**msgspec.structs.asdict(arguments.layout))
    return lambda backend: CellNetwork(
        genotype, layout, arguments.classes, arguments.image_shape, backend=backend
    )


def _check_tensors(path: Path | str, network: CellNetwork, state: Mapping[str, Tensor]) -> None:
    """Raise `WeightsError` unless a file has a network's tensors, of its shapes and types, and no others."""
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in network.state_dict().items()}
    held = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    wrong = sorted(name for name in wanted.keys() | held.keys() if wanted.get(name) != held.get(name))
    if wrong:
        first = wrong[0]
        raise WeightsError(
            f"{path}: {len(wrong):,} tensors are not those of its network, such as {printable(first[:80])}: "
            f"{_described(held.get(first))}, expected {_described(wanted.get(first))}"
        )


def _described(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "none" if tensor is None else f"{tensor[1]} of shape {tensor[0]}"


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
