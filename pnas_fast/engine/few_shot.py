"""How few-shot learning is done and measured: the options of the evaluator ``reptile``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from pnas_fast.cli.options import ConfigError, option, option_name

REPTILE = "reptile"
"""The evaluator's name."""

MOST_META_ITERATIONS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class FewShotSettings:
    """Tasks, Reptile's training (Nichol et al. 2018) and adaptation to a task.

    Defaults of the training are those of the authors' code for Mini-ImageNet, but for the meta-iterations, of
    which it makes 100,000, and for the batches of adaptation, of 15 images there.
    """

    few_shot_ways: int = option(5, "classes of a task (reptile)", minimum=2, maximum=1000)
    few_shot_shots: int = option(
        5, "images of each class that a network adapts to (reptile)", minimum=1, maximum=1000
    )
    few_shot_queries: int = option(
        5, "images of each class that it is then asked about (reptile)", minimum=1, maximum=1000
    )
    few_shot_tasks: int = option(
        200,
        "tasks of validation classes, the same for every cell, whose mean accuracy is the cell's (reptile)",
        minimum=2,
        maximum=1_000_000,
    )
    few_shot_transductive: bool = option(
        False,
        "normalise a task's questions by each other's statistics, in place of one by one beside the images "
        "adapted to (reptile)",
    )
    meta_iterations: int = option(
        2000, "of a child, in place of epochs (reptile)", minimum=1, maximum=MOST_META_ITERATIONS
    )
    meta_batch: int = option(
        5, "tasks whose adapted weights a meta-iteration averages (reptile)", minimum=1, maximum=1000
    )
    meta_shots: int = option(
        15, "images of each class of a task that is trained on (reptile)", minimum=1, maximum=1000
    )
    inner_iterations: int = option(
        8, "steps of adaptation to a task that is trained on (reptile)", minimum=1, maximum=10_000
    )
    adaptation_iterations: int = option(
        50, "steps of adaptation to a task that is judged by (reptile)", minimum=1, maximum=10_000
    )
    inner_batch: int = option(10, "images of a step of adaptation (reptile)", minimum=2, maximum=10_000)
    inner_rate: float = option(
        1e-3, "learning rate of a step of adaptation, by Adam (reptile)", minimum=1e-9, maximum=10
    )

    @property
    def task_sizes(self) -> tuple[int, int, int]:
        """Classes of a task, images of each class where it is trained on, and where it is judged by."""
        return self.few_shot_ways, self.meta_shots, self.few_shot_shots + self.few_shot_queries


OPTIONS = tuple(item.name for item in fields(FewShotSettings))

NOT_TAKEN = (
    "epochs", "batch", "optimizer", "learning_rate", "weight_decay", "label_smoothing", "class_weights",
    "clip", "drop_path", "flip", "crop_padding", "cutout", "test_children",
)  # fmt: skip
"""Options of ordinary training that have no part in this."""


def check_evaluator(evaluator: str, given: Iterable[str]) -> None:
    """Raise `ConfigError` for the first option that was given and that an evaluator does not take."""
    for name in given:
        if name in OPTIONS and evaluator != REPTILE:
            raise ConfigError(
                f"{option_name(name)} is an option of --evaluator {REPTILE}, the evaluator is {evaluator}"
            )
        if name in NOT_TAKEN and evaluator == REPTILE:
            raise ConfigError(
                f"{option_name(name)} is no option of --evaluator {REPTILE}, allowed are "
                f"{' '.join(map(option_name, OPTIONS))}"
            )
