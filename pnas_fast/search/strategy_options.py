"""The strategies of a search, and which options belong to which of them."""

from __future__ import annotations

from collections.abc import Sequence

from pnas_fast.cli.options import ConfigError, option_name

STRATEGIES = ("progressive", "random", "evolution", "controller", "local", "bananas", "exhaustive")

OPTIONS_OF: dict[str, tuple[str, ...]] = {
    "first_level": ("progressive",),
    "beam": ("progressive",),
    "predictor": ("progressive", "bananas"),
    "refit": ("progressive",),
    "kappa": ("progressive",),
    "learn": ("progressive",),
    "budget": ("random", "evolution", "controller", "local", "bananas"),
    "lag": ("evolution", "controller", "local", "bananas"),
    "population": ("evolution",),
    "sample": ("evolution",),
    "retrain": ("evolution",),
    "policy": ("controller",),
    "algorithm": ("controller",),
    "controller_rate": ("controller",),
    "batch_of_proposals": ("controller",),
    "candidates": ("bananas",),
    "explore": ("progressive",),
    "cells": ("exhaustive",),
    "replicas": ("exhaustive",),
}
"""The strategies that an option belongs to, where it does not belong to all."""


def takes(strategy: str, name: str) -> bool:
    """Whether a strategy has an option."""
    return strategy in OPTIONS_OF.get(name, (strategy,))


def check_belongs(strategy: str, given: list[str]) -> None:
    """Raise `ConfigError` for the first option that was given and belongs to other strategies."""
    for name in given:
        if not takes(strategy, name):
            raise ConfigError(
                f"{option_name(name)} is an option of {in_words(OPTIONS_OF[name])}, "
                f"the strategy is {strategy}"
            )


def in_words(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])
