"""The studies behind the defaults of progressive search: what they draw and what they print."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import first_level
import variants
from pnas_fast.candidates import one_block_cells
from pnas_fast.compare.cli import parse
from pnas_fast.space import OPERATIONS
from quality import TARGET


def test_cells_of_the_first_level_are_distinct_and_differ_by_draw() -> None:
    codes = one_block_cells(OPERATIONS)
    for how in ("balanced", "random"):
        one, other = (first_level.places(codes, 24, seed, how) for seed in (0, 1))
        assert len(set(one)) == len(one) == 24
        assert one != other
    assert sorted(first_level.places(codes, 136, 0, "random")) == list(range(len(codes)))


def test_a_surrogate_of_what_follows_from_cells_chooses_better_ones() -> None:
    codes = one_block_cells(OPERATIONS)
    worth = np.linspace(0, 0.5, len(OPERATIONS))
    values = worth[codes[:, 0, 1]] + worth[codes[:, 0, 3]]
    level = first_level.Level(codes, values, values)
    rho, gain = first_level.choice("paths", level, level, seed=0)
    assert rho > 0.9
    assert gain > 1


def test_every_variant_is_a_comparison_that_can_be_run(tmp_path: Path) -> None:
    for variant in variants.VARIANTS.values():
        parse(variants.command(variant, 2, tmp_path))


def test_a_row_says_where_searches_never_come_to_the_best() -> None:
    target = {"title": TARGET, "axes": {"cells": {"progressive": {"median": None}}}}
    end = {"mean": 0.7253, "error": 0.0006}
    found = {"progressive": {"accuracy": {"true": {"1": {"end": end}}}}}
    text = variants.row("default", {"targets": [target], "strategies": found})
    assert text.split() == ["default", "none", "children,", "pick", "72.53", "±", "0.06", "%"]
