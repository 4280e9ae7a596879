"""From a configuration to the objects of a search: the one place that knows all strategies and evaluators."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.cli.options import ConfigError
from pnas_fast.engine.few_shot import REPTILE
from pnas_fast.evaluation.function import function_spec
from pnas_fast.evaluation.reptile import few_shot_spec
from pnas_fast.evaluation.table import table_spec
from pnas_fast.evaluation.train import train_spec
from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Emit, Spec, Strategy
from pnas_fast.search.config import SearchConfig, progressive_children
from pnas_fast.strategies.bananas import Bananas
from pnas_fast.strategies.controller import Controller, notes_on_controller
from pnas_fast.strategies.evolution import Evolution
from pnas_fast.strategies.exhaustive import Exhaustive
from pnas_fast.strategies.finalists import Finalists
from pnas_fast.strategies.local import Local
from pnas_fast.strategies.population import note_on_population
from pnas_fast.strategies.progressive import Progressive
from pnas_fast.strategies.random import Random
from pnas_fast.surrogate import Growth


def make_strategy(
    config: SearchConfig, emit: Emit = lambda event: None, aims: Aims = ACCURACY_ALONE
) -> Strategy:
    """The strategy that a configuration asks for, and the final choice after it.

    Args:
        config: of the search.
        emit: is told what the strategy notes.
        aims: of the configuration (`pnas_fast.search.aims.make_aims`).
    """
    strategy = _make_search(config, emit, aims)
    if not config.finalists:
        return strategy
    return Finalists(
        strategy, config.finalists, config.final_replicas, config.final_epochs or config.child_budget, emit,
        aims,
    )  # fmt: skip


def _make_search(config: SearchConfig, emit: Emit, aims: Aims) -> Strategy:
    blocks, operations, epochs, seed = config.blocks, config.operations, config.child_budget, config.seed
    match config.strategy:
        case "random":
            return Random(blocks, operations, budget_of(config), epochs, seed, aims)
        case "evolution":
            return Evolution(
                blocks, operations, budget_of(config), epochs, seed,
                lag=config.lag, population=config.population, sample=config.sample, retrain=config.retrain,
                aims=aims,
            )  # fmt: skip
        case "controller":
            return Controller(
                blocks, operations, budget_of(config), epochs, seed,
                lag=config.lag, batch=config.batch_of_proposals, policy=config.policy,
                algorithm=config.algorithm, rate=config.controller_rate, emit=emit, aims=aims,
            )  # fmt: skip
        case "local":
            return Local(blocks, operations, budget_of(config), epochs, seed, config.lag, aims)
        case "bananas":
            return Bananas(
                blocks, operations, budget_of(config), epochs, seed,
                lag=config.lag, candidates=config.candidates, predictor=config.predictor, emit=emit,
                aims=aims,
            )  # fmt: skip
        case "exhaustive":
            return Exhaustive(blocks, operations, config.cells, config.replicas, epochs, seed, aims)
        case _:
            growth = Growth(
                blocks, config.beam, operations, config.predictor, config.refit, config.kappa,
                config.first_level,
            )  # fmt: skip
            return Progressive(growth, epochs, seed, emit, config.learn, aims, config.explore)


def notes_on(config: SearchConfig) -> list[str]:
    """Lines for people about a configuration that is allowed and perhaps not meant."""
    if config.strategy == "controller":
        return notes_on_controller(budget_of(config), config.lag, config.batch_of_proposals)
    if config.strategy != "evolution":
        return []
    note = note_on_population(budget_of(config), config.population)
    return [] if note is None else [note]


def budget_of(config: SearchConfig) -> int:
    """Children to train: as asked, or as many as progressive search would."""
    return config.budget or progressive_children(config.for_strategy("progressive"))


def make_spec(config: SearchConfig, data: str) -> Spec:
    """How an evaluator is made in a worker; ``data`` is the identity of the data.

    Raises:
        ConfigError: the configuration names none.
    """
    kind, _, argument = config.evaluator.partition(":")
    if config.evaluator == "train":
        return train_spec(config, data, config.test_children)
    if config.evaluator == REPTILE:
        return few_shot_spec(config, config, data, config.children_seed)
    if kind == "table" and argument:
        return table_spec(Path(argument), config.draw_replicas)
    if argument and all(part.isidentifier() for part in (*kind.split("."), argument)):
        return function_spec(config.evaluator, config, data)
    raise ConfigError(
        f"evaluator is {config.evaluator!r}, allowed are train, reptile, table:FILE and "
        "package.module:function"
    )
