"""From a configuration to the objects of a search: the one place that knows all strategies and evaluators."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pnas_fast.candidates import one_block_cells
from pnas_fast.cli.options import ConfigError
from pnas_fast.engine import TrainingSettings
from pnas_fast.protocols import Emit, Evaluator, Spec, Strategy
from pnas_fast.search.config import SearchConfig
from pnas_fast.strategies.evolution import Evolution
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.strategies.random import Random
from pnas_fast.surrogate import Growth

TRAIN = "pnas_fast.evaluation.train:Train"
TABLE = "pnas_fast.evaluation.table:Table"
FUNCTION = "pnas_fast.evaluation.function:Function"


def make_strategy(config: SearchConfig, emit: Emit = lambda event: None) -> Strategy:
    """The strategy that a configuration asks for."""
    blocks, operations, epochs, seed = config.blocks, config.operations, config.epochs, config.seed
    match config.strategy:
        case "random":
            return Random(blocks, operations, budget_of(config), epochs, seed)
        case "evolution":
            return Evolution(
                blocks, operations, budget_of(config), epochs, seed,
                lag=config.lag, population=config.population, sample=config.sample, retrain=config.retrain,
            )  # fmt: skip
        case _:
            growth = Growth(blocks, config.beam, operations, config.predictor, config.refit, config.kappa)
            return Progressive(growth, epochs, seed, emit)


def budget_of(config: SearchConfig) -> int:
    """Children to train: as asked, or as many as progressive search would with the default K."""
    levels = (config.blocks - 1) * SearchConfig.beam
    return config.budget or len(one_block_cells(config.operations)) + levels


def make_spec(config: SearchConfig, data: str) -> Spec:
    """How an evaluator is made in a worker; ``data`` is the identity of the data."""
    kind, _, argument = config.evaluator.partition(":")
    if config.evaluator == "train":
        return Spec(TRAIN, {"settings": training_values(config), "data": data})
    if kind == "table" and argument:
        return Spec(TABLE, {"file": argument})
    if argument and all(part.isidentifier() for part in (*kind.split("."), *argument.split("."))):
        return Spec(
            FUNCTION, {"function": config.evaluator, "settings": training_values(config), "data": data}
        )
    raise ConfigError(
        f"evaluator is {config.evaluator!r}, allowed are train, table:FILE and package.module:function"
    )


def training_values(config: SearchConfig) -> Mapping[str, Any]:
    """A configuration's `TrainingSettings` alone, as JSON values."""
    return {item.name: getattr(config, item.name) for item in fields(TrainingSettings)}


def make_evaluator(spec: Spec) -> Evaluator:
    """The evaluator of a spec.

    Raises:
        EvaluatorError: it cannot be made.
    """
    module, _, name = spec.name.partition(":")
    evaluator: Evaluator = getattr(importlib.import_module(module), name)(**spec.settings)
    return evaluator
