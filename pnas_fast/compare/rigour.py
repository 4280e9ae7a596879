"""What a reader must know to believe a comparison, found in the runs and not in what somebody says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pnas_fast.compare.compared import Comparison
from pnas_fast.engine.few_shot import OPTIONS as FEW_SHOT
from pnas_fast.engine.few_shot import REPTILE
from pnas_fast.engine.settings import HOW, TrainingSettings
from pnas_fast.report.text import number, setting
from pnas_fast.report.view import VALIDATION_IMAGES
from pnas_fast.search.config import TABLE
from pnas_fast.search.strategy_options import OPTIONS_OF

TEST_IMAGES = "test_images"
"""The name, among a trial's values, of how many images its test accuracy is of."""

SHARED, INDEPENDENT = "shared", "independent"

_CHILDREN = ("data", "blocks", "operations", "evaluator", "draw_replicas")
"""What beside the training must be the same for children to be comparable."""


def trainings_of(comparison: Comparison) -> str:
    """Whether a cell has one accuracy in all runs."""
    configs = [record.config for record in comparison.records]
    answers = [str(config.get("evaluator")).startswith(TABLE) for config in configs]
    draws = any(config.get("draw_replicas") for config in configs)
    # A table that draws nothing answers the same whatever the seed.
    is_same = (all(answers) and not draws) or len(set(map(_children_seed, configs))) == 1
    return SHARED if is_same else INDEPENDENT


def _children_seed(config: Mapping[str, Any]) -> Any:
    own = number(config.get("evaluation_seed"))
    return config.get("seed") if own is None or own < 0 else own


def rigour_of(comparison: Comparison) -> list[dict[str, Any]]:
    """Points of a list: what, what was found, and whether it is as it should be (None: for the reader)."""
    runs = [len(group.runs) for group in comparison.groups]
    budgets = {
        group.strategy: {len(run.record.distinct) for run in group.runs} for group in comparison.groups
    }
    reported = comparison.measures[0]
    found: list[tuple[str, str, bool | None]] = [
        ("same children", *_same_children(comparison)),
        (
            "same budget",
            ", ".join(f"{name} {_range(counts)}" for name, counts in budgets.items()) + " children",
            len(set().union(*budgets.values())) == 1,
        ),
        ("repeats", _range(set(runs)) + " of each strategy", min(runs) >= 5),
        ("trainings", _TRAININGS[trainings_of(comparison)], None),
        ("hyper-parameters", _parameters(comparison), None),
        ("selection", f"by validation accuracy; told: {reported.title}", reported.name != "validation"),
        ("data", _data(comparison), None),
        ("resolution", _resolution(comparison), None),
        ("tests", "Mann-Whitney U, Holm's correction; bootstrap intervals; no t-test", None),
    ]
    if comparison.lost_table is not None:
        found.append(("table", comparison.lost_table, False))
    return [{"what": what, "found": text, "holds": holds} for what, text, holds in found]


_TRAININGS = {
    SHARED: "shared: a cell has one accuracy in all runs, so the spread is the searches' own",
    INDEPENDENT: "independent: a cell is trained anew in each run, the spread holds the noise of trainings",
}


def _same_children(comparison: Comparison) -> tuple[str, bool]:
    names = [item.name for item in fields(TrainingSettings) if item.name not in HOW] + list(_CHILDREN)
    configs = [record.config for record in comparison.records]
    if any(config.get("evaluator") == REPTILE for config in configs):
        names += FEW_SHOT
    different = [name for name in names if len({setting(config.get(name)) for config in configs}) > 1]
    if different:
        return f"{', '.join(different)} differ", False
    config = configs[0]
    few_shot = config.get("evaluator") == REPTILE
    trained = {"meta-iterations": "meta_iterations"} if few_shot else {"epochs": "epochs"}
    told = {"B": "blocks", "N": "repeats", "F": "filters", **trained, "evaluator": "evaluator"}
    return ", ".join(f"{short} {setting(config.get(name))}" for short, name in told.items()), True


def _parameters(comparison: Comparison) -> str:
    """What was fixed before the runs, by strategy."""
    told = []
    for group in comparison.groups:
        own = [name for name, owners in OPTIONS_OF.items() if group.strategy in owners]
        values = [
            f"{name} {'/'.join(sorted({setting(run.record.config.get(name)) for run in group.runs}))}"
            for name in own
        ]
        told.append(f"{group.strategy}: {', '.join(values)}")
    return "; ".join(told)


def _data(comparison: Comparison) -> str:
    """What children were trained, chosen and told by, as far as the runs know."""
    config = comparison.records[0].config
    evaluator, name = str(config.get("evaluator")), setting(config.get("data"))
    if evaluator.startswith(TABLE):
        parts = [f"those of {evaluator}"]
    elif evaluator == REPTILE:
        parts = [f"{name}, {setting(config.get('few_shot_tasks'))} tasks of validation classes"]
    else:
        parts = [name]
        trained = {
            round((number(trial.value("images_seen")) or 0) / (number(trial.proposal.budget) or 1))
            for trial in comparison.records[0].done
        } - {0}
        parts += [f"{_range(trained)} training images"] if trained else []
    for part in (VALIDATION_IMAGES, TEST_IMAGES):
        counted = {int(count) for count in _images(comparison, part)}
        parts += [f"{_range(counted)} {part.replace('_', ' ')}"] if counted else []
    return ", ".join(parts)


def _images(comparison: Comparison, part: str) -> set[float]:
    """Of how many images, ``validation_images`` or ``test_images``, the runs' accuracies are."""
    found = {number(trial.value(part)) for record in comparison.records for trial in record.done}
    return {count for count in found if count}


def _resolution(comparison: Comparison) -> str:
    counts = _images(comparison, VALIDATION_IMAGES)
    if not counts:
        return "unknown: the runs do not say of how many images an accuracy is"
    return f"one validation image is {1 / min(counts):.3%}"


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
