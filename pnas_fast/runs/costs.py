"""What a run knows of the costs of cells, so that nobody needs its data, a device's file or a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pnas_fast.objectives.additive import AdditiveCost
from pnas_fast.objectives.aims import Aims, aims_of
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.limits import ACCURACY
from pnas_fast.objectives.memory import Memory
from pnas_fast.protocols import Cost
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.store import TrialStore

_FACT = "costs"
_DEFAULTS: tuple[tuple[str, list[str]], ...] = (("objectives", [ACCURACY]), ("limit", []))
_Row = Annotated[list[float], Meta(max_length=64)]


class _Additive(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of `AdditiveCost`."""

    name: str
    unit: str
    table: Annotated[list[_Row], Meta(max_length=64)]
    const: _Row


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    """The fact: what network costs are of, in words, and each cost; memory follows from the network."""

    deployed: str
    additive: list[_Additive]
    memory: Deployment | None = None


def settle_costs(folder: Path, deployed: str, costs: Mapping[str, Cost], store: TrialStore) -> None:
    """Make a store say what cells cost in the run, which stays the same; nothing where there are no costs.

    Args:
        folder: of the run.
        deployed: what network costs are of, in words.
        costs: by their names.
        store: of the run.

    Raises:
        RunError: they are others than those the run began with.
    """
    if not costs:
        return
    text = msgspec.json.encode(_stored(deployed, costs)).decode()
    known = store.fact(_FACT)
    if known is not None and known != text:
        raise RunError(
            f"--out {folder}: cells cost something else than when the run began; give the device's file that "
            "it began with, or choose another --out"
        )
    store.set_fact(_FACT, text)


def _stored(deployed: str, costs: Mapping[str, Cost]) -> _Stored:
    additive = [cost for cost in costs.values() if isinstance(cost, AdditiveCost)]
    memory = next((cost.deployment for cost in costs.values() if isinstance(cost, Memory)), None)
    return _Stored(deployed, [_Additive(**cost.values()) for cost in additive], memory)


def stored_costs(store: TrialStore, folder: Path) -> dict[str, Cost]:
    """What a store says of the costs of cells, by their names; empty where it says nothing.

    Raises:
        StoreError: it is damaged.
    """
    text = store.fact(_FACT)
    return {} if text is None else _read(text, folder)


def run_aims(config: Mapping[str, Any], costs: Mapping[str, Cost], folder: Path) -> Aims:
    """What the cells of a run are to be good at, from the values of its configuration.

    Raises:
        StoreError: the run does not say what they cost.
    """
    # A run of an early version may have a number by that name.
    objectives, limits = (
        value if isinstance(value := config.get(name), list) else default for name, default in _DEFAULTS
    )
    try:
        return aims_of(objectives, limits, costs)
    except ValueError as error:
        raise StoreError(f"{folder}: {error}") from error


def _read(text: str, folder: Path) -> dict[str, Cost]:
    try:
        stored = msgspec.json.decode(text, type=_Stored)
        costs: list[Cost] = [AdditiveCost(**msgspec.structs.asdict(one)) for one in stored.additive]
        costs += [] if stored.memory is None else [Memory(stored.memory)]
        return {cost.name: cost for cost in costs}
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreError(f"{folder}: what it says of costs is damaged ({error})") from error
