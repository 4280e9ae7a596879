"""Checkpoints of a training: whole or not there, checked when read, the last two of them kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import torch
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pnas_fast.engine.settings import MOST_EPOCHS
from pnas_fast.files import replacing
from pnas_fast.runs.disk import writing
from pnas_fast.train.machine import Machine

CHECKPOINTS = "checkpoints"
KEPT = 2
"""So many are kept: the newest, and one to go back to should it be damaged."""

_SUFFIX = ".safetensors"
_SINCE = ("machine",)  # what earlier versions did not write


MOST_STEPS = 10**8 - 1
"""Of an epoch: as many as names of checkpoints have digits for."""

T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which and why."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was written: the one before it may still be."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a training a checkpoint was taken: ``index`` steps of ``epoch`` are done, both from 0.

    ``best`` is the best validation accuracy before that epoch, -1 before there was one; ``seconds`` of
    training went into the epoch so far.
    """

    epoch: Annotated[int, Meta(ge=0, le=MOST_EPOCHS)] = 0
    index: Annotated[int, Meta(ge=0, le=MOST_STEPS)] = 0
    best: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    seconds: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place and everything that training goes on with, on the CPU.

    ``machine`` is what it was taken on, None where an earlier version did not write that down.
    """

    path: Path
    place: Place
    machine: Machine | None
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, place: Place, machine: Machine, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint into a run's folder, then remove those before the last `KEPT`.

    It gets its name when it is whole and on the disk. It is a safetensors file whose metadata holds the
    place, the machine and a SHA-256 of everything.

    Raises:
        DiskError: it cannot be written; those before it are still there.
    """
    home = folder / CHECKPOINTS
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"place": _json(place), "machine": _json(machine)}
    metadata["sha256"] = _digest(metadata, state)
    path = home / _name(place)
    with writing(path):
        home.mkdir(exist_ok=True)
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
        CheckpointError: there are checkpoints, all of them damaged; or one is whole, but cannot be.
    """
    paths = _newest_first(folder / CHECKPOINTS)
    for path in paths:
        try:
            return read_checkpoint(path)
        except DamagedError as error:
            note(f"{error}; going back to the one before")
    if paths:
        raise CheckpointError(
            f"{folder / CHECKPOINTS}: no checkpoint is whole; remove the folder to train from the beginning"
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, its metadata checked; its tensors are what somebody wrote, of whatever network.

    Raises:
        DamagedError: it is cut short, changed, or something else.
        CheckpointError: it is whole, and says what cannot be.
        OSError: the disk does not give it.
    """
    content = path.read_bytes()
    try:
        tensors = load(content)
        metadata = _metadata(content)
        place_text, expected = metadata["place"], metadata["sha256"]
        texts = {"place": place_text} | {name: metadata[name] for name in _SINCE if name in metadata}
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{path}: not a whole checkpoint ({error})") from error
    if _digest(texts, tensors) != expected:
        raise DamagedError(f"{path}: damaged, its contents are not what its SHA-256 says")
    place = _decoded(path, "place", place_text, Place)
    machine = _decoded(path, "machine", texts["machine"], Machine) if "machine" in texts else None
    if path.name != _name(place):
        raise CheckpointError(
            f"{path}: holds epoch {place.epoch}, index {place.index}, expected in a file named {_name(place)}"
        )
    return Checkpoint(path, place, machine, tensors)


def whole_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a run that can be read, the newest first."""
    found = []
    for path in _newest_first(folder / CHECKPOINTS):
        try:
            found.append(read_checkpoint(path))
        except (CheckpointError, OSError):
            continue
    return found


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
    names = (path for path in home.glob(f"*{_SUFFIX}") if path.name[0] != ".")
    return sorted((path for path in names if path.is_file()), reverse=True)


def _json(value: Any) -> str:
    return json.dumps(asdict(value))


def _metadata(content: bytes) -> dict[str, str]:
    """What stands beside the tensors in a safetensors file: its header begins after its length in 8 bytes."""
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    return msgspec.json.decode(header, type=_Header).metadata


class _Header(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def _decoded(path: Path, name: str, text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CheckpointError(f"{path}: its {name} cannot be ({error})") from error


def _digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256("".join(texts.values()).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
