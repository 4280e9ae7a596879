"""What a store remembers of its run: configuration, data, and where it was carried out.

``config.json`` is for people and other programs; the store holds the same values, so that an edited file
is noticed and never shown over results of another configuration.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from pnas_fast.runs.config import RunConfig, augmented_otherwise
from pnas_fast.runs.folder import CONFIG, RunError
from pnas_fast.runs.store import TrialStore

_CONFIG, _NEXT, _DATA, _WHERE, _FINISHED = "config", "config_next", "data", "where", "finished"
_TESTS = "test_images"

_RECIPE = ("backend", "precision", "device", "threads")
"""How children are carried out: it changes last bits, and not what run it is."""


def check_not_edited(folder: Path, values: Mapping[str, Any], store: TrialStore) -> None:
    """Raise `RunError` where ``config.json`` is neither what the store holds nor what it was to hold next."""
    held = [fact for fact in (store.fact(_CONFIG), store.fact(_NEXT)) if fact is not None]
    if held and _text(values) not in held:
        theirs = json.loads(held[0])
        names = [name for name in {**theirs, **values} if theirs.get(name) != values.get(name)]
        changed = "; ".join(f"{name} {theirs.get(name)} -> {values.get(name)}" for name in names)
        raise RunError(
            f"{folder / CONFIG}: was edited ({changed}) and its trials are of the former; put it back, "
            "or give the option on the command line"
        )


def settle(folder: Path, config: RunConfig, data: str, store: TrialStore) -> list[str]:
    """Make store and ``config.json`` say what the run now is; returns lines that a person should read.

    Where the configuration was raised, what followed from the former one is forgotten; measurements stay.

    Raises:
        RunError: the data are others than those its measurements were made with.
    """
    said = []
    known = store.fact(_DATA)
    text = _text(config.values())
    before = store.fact(_CONFIG)
    if known is not None and known != data:
        changed = augmented_otherwise(json.loads(before or "{}"), config.values())
        what = (
            f"images augmented otherwise ({'; '.join(changed)})"
            if changed
            else (f"other images than those of --data {config.data}")
        )
        raise RunError(
            f"--out {folder}: its children were trained on {what}; "
            "give the run's own, or choose another --out"
        )
    if before != text:
        store.set_fact(_NEXT, text)
        config.save(folder / CONFIG)
        if before is not None and _what(config, json.loads(before)) != _what(config, config.values()):
            store.forget_proposals()
        store.set_fact(_CONFIG, text)
    store.set_fact(_DATA, data)
    where = _text(_where(config))
    earlier = store.fact(_WHERE)
    if earlier is not None and earlier != where:
        before_that = json.loads(earlier)
        names = [name for name, now in _where(config).items() if before_that.get(name, now) != now]
        if names:
            said.append(
                f"this run began with another {', '.join(names)}: results may differ in their last bits"
            )
    store.set_fact(_WHERE, where)
    return said


def settle_tests(folder: Path, tests: str, store: TrialStore) -> None:
    """Make a store say which test images a run measures on: they are in no identity, and stay the same.

    Args:
        folder: of the run.
        tests: digest of the test images; empty where there are none.
        store: of the run.

    Raises:
        RunError: they are others than those the run began with.
    """
    known = store.fact(_TESTS)
    if known is not None and tests and known != tests:
        raise RunError(
            f"--out {folder}: its test images or their labels are others than those it began with; "
            "give the run's own, or choose another --out"
        )
    if tests:
        store.set_fact(_TESTS, tests)


def mark_finished(config: RunConfig, store: TrialStore) -> None:
    """Remember that a run has come to its end with this configuration."""
    store.set_fact(_FINISHED, _text(_what(config, config.values())))


def is_finished(config: RunConfig, store: TrialStore) -> bool:
    """Whether a run came to its end with this configuration, or one that is carried out otherwise."""
    return store.fact(_FINISHED) == _text(_what(config, config.values()))


def _what(config: RunConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """What run it is; an option that there was not yet has its default."""
    defaults = {item.name: item.default for item in fields(config)}
    return {name: values.get(name, defaults[name]) for name in config.identity()}


def _where(config: RunConfig) -> dict[str, Any]:
    recipe = {name: getattr(config, name) for name in _RECIPE}
    # Open until it is chosen, and one for whoever began before there was a choice.
    recipe |= {"share": config.share} if config.share else {}
    processor = torch.backends.cpu.get_cpu_capability()
    return recipe | {"torch": torch.__version__, "processor": f"{platform.machine()} {processor}"}


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
