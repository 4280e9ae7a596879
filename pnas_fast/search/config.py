"""The configuration of a search: one flat, frozen, checked value, and its two presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from pnas_fast.cli.options import ConfigError, option
from pnas_fast.runs.config import RunConfig
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, CellError, check_operations
from pnas_fast.surrogate import PREDICTORS, REFITS

PRESETS = ("quick", "paper")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(RunConfig):
    """What a search does. Without arguments it is the ``quick`` preset.

    Fields of `TrainingSettings` say how each child is built and trained; every field is also an option
    of ``python -m pnas_fast.search``.

    Raises:
        ConfigError: a value outside its limits.
    """

    KIND: ClassVar[str] = "search"

    blocks: int = option(3, "B: grow cells up to so many blocks", minimum=1, maximum=MAX_BLOCKS)
    beam: int = option(24, "K: children trained at each level after the first", minimum=1)
    operations: tuple[str, ...] = option(OPERATIONS, "operations cells are made of, joined by commas")
    predictor: str = option("mlp", "surrogate: an ensemble of five mlp or lstm", choices=PREDICTORS)
    refit: str = option(
        "finetune", "at each level, finetune the surrogate or fit it from scratch", choices=REFITS
    )
    kappa: float = option(
        0.0,
        "cells are chosen by mean + kappa times standard deviation of the surrogate's members; 0 is the "
        "paper's choice, more explores",
        minimum=0,
    )
    seed: int = option(0, "of children, surrogate and choices", minimum=0, maximum=2**31 - 1)
    workers: int = option(
        0, "children side by side on a CPU; 0 is one a core", minimum=0, maximum=1024, identity=False
    )
    children_per_gpu: int = option(
        0, "children side by side on each GPU; 0 tries how many pay", minimum=0, maximum=256, identity=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "operations", check_operations(self.operations))
        except CellError as error:
            raise ConfigError(f"operations: {error}") from error

    def resolved(self) -> SearchConfig:
        """This configuration with ``device`` and ``backend`` settled for this machine.

        Raises:
            ConfigError: a device this machine lacks, a backend that does not serve it, or a number of
                children side by side that is of another device.
        """
        config = super().resolved()
        if config.device == "cuda" and self.workers:
            raise ConfigError(
                f"workers is {self.workers} on cuda, allowed is 0: --children-per-gpu counts there"
            )
        if config.device == "cpu" and self.children_per_gpu:
            raise ConfigError(
                f"children_per_gpu is {self.children_per_gpu} on cpu, allowed is 0: see --workers"
            )
        return config

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of `values()`."""
        return cls(**{**values, "operations": tuple(values["operations"])})


def device_note(asked: SearchConfig, resolved: SearchConfig) -> str | None:
    """What to say where the device was left open and is the slow one."""
    if asked.device == "auto" and resolved.device == "cpu":
        return "device auto: torch sees no CUDA GPU here, children train on the CPU"
    return None


def quick() -> SearchConfig:
    """Every stage in minutes on two CPU cores: B = 3 on the bundled digits."""
    return SearchConfig()


def paper() -> SearchConfig:
    """The paper's search: K = 256, B = 5, N = 2, F = 24, 20 epochs on CIFAR-10 (SPEC 2).

    Batch size and optimiser are not known for certain; these follow NASNet's released CIFAR settings
    but for the batch, which is larger to keep a GPU busy.
    """
    return SearchConfig(
        data="cifar10:data/cifar10",
        blocks=5,
        beam=256,
        repeats=2,
        filters=24,
        epochs=20,
        batch=128,
        learning_rate=0.01,
        time_limit=3600.0,
    )


def preset(name: str) -> SearchConfig:
    """The preset of that name, one of `PRESETS`."""
    return {"quick": quick, "paper": paper}[name]()


def default_preset() -> str:
    """``paper`` where torch sees a GPU, else ``quick``."""
    return "paper" if torch.cuda.is_available() else "quick"
