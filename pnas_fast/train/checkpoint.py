"""Checkpoints of a training: whole or not there, checked when read, the last two of them kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pnas_fast.files import replacing

CHECKPOINTS = "checkpoints"
KEPT = 2
"""So many are kept: the newest, and one to go back to should it be damaged."""

_SUFFIX = ".safetensors"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a training a checkpoint was taken: ``index`` steps of ``epoch`` are done, both from 0.

    ``best`` is the best validation accuracy before that epoch, -1 before there was one; ``seconds`` of
    training went into the epoch so far.
    """

    epoch: int = 0
    index: int = 0
    best: float = -1.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place and everything that training goes on with, on the CPU."""

    place: Place
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, place: Place, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint into a run's folder, then remove those before the last `KEPT`.

    It gets its name when it is whole and on the disk. It is a safetensors file whose metadata holds the
    place and a SHA-256 of everything.
    """
    home = folder / CHECKPOINTS
    home.mkdir(exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"place": json.dumps(asdict(place)), "sha256": _digest(place, state)}
    path = home / _name(place)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(save(state, metadata))
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the name on an empty file
    for old in _newest_first(home)[KEPT:]:
        old.unlink()


def latest_checkpoint(folder: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; None where none was written yet.

    Args:
        folder: the run's.
        note: is told of each that is damaged and passed over.

    Raises:
        CheckpointError: there are checkpoints, all of them damaged.
    """
    paths = _newest_first(folder / CHECKPOINTS)
    for path in paths:
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            note(f"{error}; going back to the one before")
    if paths:
        raise CheckpointError(
            f"{folder / CHECKPOINTS}: no checkpoint is whole; remove the folder to train from the beginning"
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint.

    Raises:
        CheckpointError: it is cut short, changed, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        place = Place(**json.loads(metadata["place"]))
        expected = metadata["sha256"]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint ({error})") from error
    if _digest(place, tensors) != expected:
        raise CheckpointError(f"{path}: damaged, its contents are not what its SHA-256 says")
    return Checkpoint(place, tensors)


def discard_unusable(folder: Path, place: Place) -> None:
    """Remove half-written checkpoints, and the damaged ones after the place that a training goes on from."""
    home = folder / CHECKPOINTS
    damaged = [path for path in _newest_first(home) if path.name > _name(place)]
    for path in [*home.glob(".*.tmp"), *damaged]:
        path.unlink()


def _name(place: Place) -> str:
    # Widths are fixed, so that the order of names is that of places.
    return f"{place.epoch:06d}-{place.index:08d}{_SUFFIX}"


def _newest_first(home: Path) -> list[Path]:
    return sorted((path for path in home.glob(f"*{_SUFFIX}") if path.name[0] != "."), reverse=True)


def _digest(place: Place, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(place)).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
