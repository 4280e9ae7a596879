"""From times to a device's file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from pnas_fast.foreign import reading
from pnas_fast.latency.fit import Floats, fit_table
from pnas_fast.objectives.additive import AdditiveCost
from pnas_fast.objectives.device import INPUT_NAMES, DeviceError, DeviceFile, Judged, Times, layout_of
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell, CellError
from pnas_fast.surrogate.ranking import rank_correlation

LARGEST_ERROR = 0.25
"""A table whose median error on networks held out is greater is of no use."""

LEAST_FITTED, LEAST_HELD_OUT = 29, 3
"""Networks: as many as the table and its constants have numbers, and as a rank correlation needs."""


def read_times(path: Path) -> Times:
    """What the script wrote on another machine.

    Raises:
        DeviceError: it cannot be read, or is something else.
    """
    with reading(path, DeviceError, "not the times that a packed folder's script writes"):
        return msgspec.json.decode(path.read_bytes(), type=Times)


def device_file(times: Times) -> DeviceFile:
    """Fit a table to the networks that are not held out, and judge it by those that are.

    Raises:
        DeviceError: too few networks, none of some size, or what is no cell or layout.
    """
    try:
        cells = [Cell.parse(network.cell) for network in times.networks]
        deployment = str(layout_of(times.deployment))
    except (CellError, ValueError) as error:
        raise DeviceError(f"times of unknown networks: {error}") from error
    ms = np.array([network.fastest for network in times.networks])
    held_out = np.array([network.held_out for network in times.networks], bool)
    fitted = [cell for cell, held in zip(cells, held_out, strict=True) if not held]
    judged = [cell for cell, held in zip(cells, held_out, strict=True) if held]
    _check_enough(fitted, judged)
    table, constants = fit_table(fitted, ms[~held_out])
    named = {
        name: dict(zip(OPERATIONS, row, strict=True))
        for name, row in zip(INPUT_NAMES, table.tolist(), strict=True)
    }
    return DeviceFile(
        deployment=deployment,
        device=times.device,
        table=named,
        constants=tuple(constants.tolist()),
        judged=_judge(AdditiveCost("latency_ms", "ms", table, constants), judged, ms[held_out]),
        networks=times.networks,
    )


def _check_enough(fitted: list[Cell], judged: list[Cell]) -> None:
    if len(fitted) < LEAST_FITTED or len(judged) < LEAST_HELD_OUT:
        raise DeviceError(
            f"times of {len(fitted)} networks and {len(judged)} held out, needed are {LEAST_FITTED} and "
            f"{LEAST_HELD_OUT} or more"
        )
    lacking = set(range(1, MAX_BLOCKS + 1)) - set(map(len, fitted))
    if lacking:
        raise DeviceError(
            f"times of no network of {min(lacking)} blocks, needed are all of 1 to {MAX_BLOCKS}"
        )


def _judge(cost: AdditiveCost, cells: list[Cell], ms: Floats) -> Judged:
    predicted = np.array([cost.before(cell.codes[np.newaxis])[0] for cell in cells])
    errors = np.abs(predicted - ms) / ms
    largest = np.array([len(cell) == MAX_BLOCKS for cell in cells])
    return Judged(
        len(cells),
        rank_correlation(predicted, ms),
        rank_correlation(predicted[largest], ms[largest]),
        float(np.median(errors)),
        float(errors.max()),
    )
