"""A device's file: how long the networks of one layout take there, and the table fitted to that."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from pnas_fast.foreign import reading
from pnas_fast.objectives.additive import INPUT_CLASSES, AdditiveCost
from pnas_fast.objectives.deployment import Deployment, changes
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell

_Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
_Time = Annotated[float, Meta(gt=0, le=1e9)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Text = Annotated[str, Meta(max_length=500)]

INPUT_NAMES = ("H[c-2]", "H[c-1]", "block")
"""The table's rows, as the file calls them."""


class DeviceError(ValueError):
    """A device cannot be measured, or its file is not what is needed; the message is one line."""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how networks were timed.

    Attributes:
        name: the processor's or the GPU's.
        system: operating system and architecture.
        cores: that the program could use.
        load: processes that ran or waited as it began, averaged over a minute; None where nobody knows.
        runtime: what ran the networks.
        provider: of that runtime: ONNX Runtime's name, or torch's device.
        threads: of the CPU.
        clock: what times were read off, `pnas_fast.latency.time_networks.clock_of`.
        versions: of runtime, Python and others.
    """

    name: _Text
    system: _Text
    cores: _Count
    load: float | None
    runtime: Literal["onnxruntime", "torch"]
    provider: _Text
    threads: _Count
    clock: Literal["wall", "processor"]
    versions: dict[_Text, _Text]


class Timed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cell's network and its milliseconds, one number a round; ``held_out`` of the fit, to judge it."""

    cell: _Text
    held_out: bool
    ms: Annotated[tuple[_Time, ...], Meta(min_length=1)]

    @property
    def fastest(self) -> float:
        """What counts: nothing makes a network faster than it is, much makes it slower for a while."""
        return min(self.ms)


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What times.json holds, which `pnas_fast.latency.time_networks` writes.

    Attributes:
        deployment: of the networks, as ``--deploy`` takes it.
        device: where and how they were timed.
        networks: every one of them.
    """

    deployment: _Text
    device: Device
    networks: Annotated[tuple[Timed, ...], Meta(max_length=10_000)]


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How well the table predicts networks that it was not fitted to.

    Attributes:
        networks: how many.
        rank_correlation: Spearman's ρ of predictions with times; None where all are equal.
        same_size: the same among those of five blocks.
        median_error: the median of |predicted − measured| / measured.
        largest_error: the greatest of them.
    """

    networks: _Count
    rank_correlation: float | None
    same_size: float | None
    median_error: Annotated[float, Meta(ge=0)]
    largest_error: Annotated[float, Meta(ge=0)]


class DeviceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the file holds.

    Attributes:
        format: of the file.
        deployment, device, networks: as in `Times`.
        table: milliseconds of a side, for each class of input and operation, by their names.
        constants: milliseconds of a network of 1 to 5 blocks a cell without its sides.
        judged: on networks that were held out.
    """

    format: Literal[1] = 1
    deployment: _Text
    device: Device
    table: dict[str, dict[str, _Milliseconds]]
    constants: Annotated[tuple[_Milliseconds, ...], Meta(min_length=MAX_BLOCKS, max_length=MAX_BLOCKS)]
    judged: Judged
    networks: tuple[Timed, ...]

    def __post_init__(self) -> None:
        layout_of(self.deployment)
        if tuple(self.table) != INPUT_NAMES or any(tuple(row) != OPERATIONS for row in self.table.values()):
            raise ValueError(f"the table's rows are not {', '.join(INPUT_NAMES)} of the eight operations")
        if list(self.constants) != sorted(self.constants):
            raise ValueError("the constants fall from one number of blocks to the next")

    @property
    def layout(self) -> Deployment:
        """What its networks are."""
        return layout_of(self.deployment)

    @property
    def digest(self) -> str:
        """Of all that predictions follow from: layout, table and constants."""
        told: list[Any] = [self.deployment, self.table, self.constants]
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()

    def cost(self) -> AdditiveCost:
        """``latency_ms``: what the network of a cell takes there."""
        table = np.array([list(row.values()) for row in self.table.values()])
        assert table.shape == (INPUT_CLASSES, len(OPERATIONS))
        return AdditiveCost("latency_ms", "ms", table, np.array(self.constants))

    def latency(self, cell: Cell) -> float:
        """The predicted milliseconds of a cell's network."""
        return float(self.cost().before(cell.codes[np.newaxis])[0])


def layout_of(text: str) -> Deployment:
    """The deployment of a text that leaves at most the batch out; of RGB images and ten classes.

    Channels and classes hardly cost anything beside cells.

    Raises:
        ValueError: a text of another kind; the message says what is allowed.
    """
    missing = {"repeats", "filters", "image"} - set(changes(text))
    if missing:
        raise ValueError(f"deploy is {text!r}: lacks {', '.join(sorted(missing))}, which a device needs")
    return Deployment.of(text, 1, 1, (3, 1, 1), 10)


def read_device(path: Path, deployment: Deployment | None = None) -> DeviceFile:
    """Read a device's file.

    Args:
        path: of the file.
        deployment: what its networks must be; None is any. Of images and classes only the size of images
            counts.

    Raises:
        DeviceError: it cannot be read, is something else, or is about networks of another layout.
    """
    with reading(path, DeviceError, "not a device's file of python -m pnas_fast.latency"):
        found = msgspec.json.decode(path.read_bytes(), type=DeviceFile)
    if deployment is not None and found.deployment != str(deployment):
        raise DeviceError(f"{path}: of networks {found.deployment}, wanted are {deployment}")
    return found
