"""The runs of a comparison: who searches, how often, and with what configuration."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pnas_fast.cli.options import ConfigError, option_name
from pnas_fast.engine.few_shot import check_evaluator
from pnas_fast.search.config import TABLE, SearchConfig
from pnas_fast.search.plan import planned_sizes
from pnas_fast.search.strategy_options import OPTIONS_OF, in_words, takes

RUNS = "runs"
"""The folder of the runs' folders."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One run: its folder and its configuration."""

    folder: Path
    config: SearchConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """Strategies side by side.

    Attributes:
        configs: of each strategy's first repeat, resolved, by its name.
        repeats: runs of each strategy.
        independent: whether a cell is trained anew in each run, with a seed of that run.
    """

    configs: Mapping[str, SearchConfig]
    repeats: int
    independent: bool

    def runs(self, folder: Path) -> list[Planned]:
        """All runs, a repeat of every strategy after the other.

        Raises:
            ConfigError: a seed beyond its limit.
        """
        return [
            Planned(folder / RUNS / f"{name}-{repeat}", self._repeat(config, repeat))
            for repeat in range(self.repeats)
            for name, config in self.configs.items()
        ]

    def _repeat(self, config: SearchConfig, repeat: int) -> SearchConfig:
        return replace(config, seed=config.seed + repeat)

    @property
    def is_table(self) -> bool:
        """Whether nothing is trained."""
        return all(config.evaluator.startswith(TABLE) for config in self.configs.values())

    def budgets(self) -> dict[str, int]:
        """The children that each strategy trains, at most."""
        return {name: children_of(config) for name, config in self.configs.items()}


def children_of(config: SearchConfig) -> int:
    """The children that a search trains, at most."""
    return sum(children for _, _, _, children in planned_sizes(config))


def make_plan(
    base: SearchConfig, strategies: list[str], given: Mapping[str, Any], repeats: int, independent: bool
) -> tuple[Plan, list[str]]:
    """The plan of what was asked for, and lines that a person should read.

    A strategy is given the options that it takes. Where none of them takes one, it is refused. A beam that
    was not given is the one whose children come nearest to the budget; a budget that was not given is what
    progressive search trains, by default with its default beam.

    Args:
        base: what holds where nothing was given.
        strategies: their names.
        given: options of the search, by the names of their fields.
        repeats: of each.
        independent: see `Plan`.

    Raises:
        ConfigError: an option outside its limits, or of no strategy that is compared.
    """
    _check_taken(given, strategies)
    check_evaluator(given.get("evaluator", base.evaluator), given)
    if independent and given.get("evaluation_seed", -1) >= 0:
        raise ConfigError("--independent with --evaluation-seed: allowed is one of them")
    configs = {
        name: replace(
            base.for_strategy(name), **{key: value for key, value in given.items() if takes(name, key)}
        ).resolved()
        for name in strategies
    }
    configs = {name: _evaluated(config, independent) for name, config in configs.items()}
    configs = _matched(configs, "budget" in given, "beam" in given)
    plan = Plan(configs, repeats, independent)
    return plan, _notes(plan)


def changed_plan(
    saved: Plan, strategies: list[str], given: Mapping[str, Any], repeats: int, independent: bool
) -> Plan:
    """A plan that was made before, with what was given now: perhaps other workers, perhaps another plan.

    Raises:
        ConfigError: as `make_plan`.
    """
    _check_taken(given, strategies)
    some = next(iter(saved.configs.values()))
    check_evaluator(given.get("evaluator", some.evaluator), given)
    configs = {
        name: replace(
            saved.configs.get(name, some.for_strategy(name)),
            **{key: value for key, value in given.items() if takes(name, key)},
        ).resolved()
        for name in strategies
    }
    return Plan(configs, repeats, independent)


def _check_taken(given: Mapping[str, Any], strategies: list[str]) -> None:
    for name in given:
        if not any(takes(strategy, name) for strategy in strategies):
            raise ConfigError(
                f"{option_name(name)} is an option of {in_words(OPTIONS_OF[name])}, the strategies "
                f"compared are {', '.join(strategies)}"
            )


def _evaluated(config: SearchConfig, independent: bool) -> SearchConfig:
    """With the seeds of children that all repeats have, or those of its own."""
    if not independent:
        return replace(config, evaluation_seed=config.children_seed)
    return replace(config, draw_replicas=config.evaluator.startswith(TABLE))


def _matched(configs: dict[str, SearchConfig], has_budget: bool, has_beam: bool) -> dict[str, SearchConfig]:
    """With budget and beam as near to each other as may be, where one of them was left open."""
    with_beam = next((config for name, config in configs.items() if takes(name, "beam")), None)
    matched = dict(configs)
    for name, config in configs.items():
        if takes(name, "budget") and not has_budget and with_beam is not None:
            matched[name] = replace(config, budget=children_of(with_beam))
    budget = next((config.budget for name, config in matched.items() if takes(name, "budget")), None)
    if has_budget and not has_beam and budget:
        for name, config in configs.items():
            if takes(name, "beam"):
                matched[name] = replace(config, beam=nearest_beam(config, budget))
    return matched


def nearest_beam(config: SearchConfig, budget: int) -> int:
    """The least K with which progressive search trains as many children as possible near to a budget."""

    def children(beam: int) -> int:
        return children_of(replace(config, beam=beam))

    enough = min(1 + bisect_left(range(1, budget + 1), budget, key=children), budget)
    # Where the space is too small for the budget, the least that trains all that can be.
    enough = 1 + bisect_left(range(1, enough + 1), children(enough), key=children)
    return min(
        (beam for beam in (enough - 1, enough) if beam >= 1), key=lambda beam: abs(children(beam) - budget)
    )


def _notes(plan: Plan) -> list[str]:
    budgets = plan.budgets()
    if len(set(budgets.values())) == 1:
        return []
    told = ", ".join(f"{name} {children:,}" for name, children in budgets.items())
    with_beam = [(name, config.beam) for name, config in plan.configs.items() if takes(name, "beam")]
    beams = "".join(f"; {name}'s follow from B and K {beam}" for name, beam in with_beam)
    return [f"budgets differ: {told} children at most{beams}"]
