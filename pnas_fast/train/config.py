"""The configuration of a long training."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from pnas_fast.cli.options import ConfigError, option
from pnas_fast.data import forms
from pnas_fast.engine.settings import LATER, MOST_BATCH, MOST_EPOCHS
from pnas_fast.runs.config import RunConfig, augmented_otherwise
from pnas_fast.threads import cores

MACHINE = ("device", "backend", "precision", "threads")
"""Fields that say what a training runs on. It goes on on other machines, so they do not say what it is."""

PARTS = ("train", "all")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """How one cell's network is built and trained for long.

    Without arguments: PNASNet-5's cell, N = 3, F = 48, 600 epochs on CIFAR-10 by NASNet's released recipe
    (docs/method.md, 3.3: SGD, 0.025 along one cosine, batch 32, drop-path 0.4, auxiliary loss 0.4, norm 5,
    weight decay 5e-4) with cutout of 16 pixels. Every field but the three digests is also an option
    of ``python -m pnas_fast.train``, where defaults follow the images (`pnas_fast.train.recipe`).

    With more than one of ``seeds`` it describes as many trainings, see `each_seed`.

    In a run's folder the fields of `MACHINE` are as they were asked for, ``auto`` among them; `resolved`
    gives what they mean on this machine.

    Raises:
        ConfigError: a value outside its limits.
    """

    KIND: ClassVar[str] = "training"
    SINCE: ClassVar[tuple[str, ...]] = (
        "on", "seeds", "init", "init_identity", "data_identity", "test_identity",
        *(name for name in LATER if name != "cutout"),
    )  # fmt: skip

    cell: str = option("pnasnet5_cifar", "the cell: its text, or a published network's name")
    data: str = option("cifar10:data/cifar10", f"data set: {forms()}")
    on: str = option(
        "train",
        "images that are trained on: train, and the best epoch on the validation images is kept; or all, "
        "validation images too, and the last weights are kept, as nothing is left to choose by",
        choices=PARTS,
    )
    repeats: int = option(3, "N: the network has 3N cells", minimum=1, maximum=100)
    filters: int = option(48, "F: channels of a block in the first cells", minimum=1, maximum=4096)
    epochs: int = option(600, "passes over the training images", minimum=1, maximum=MOST_EPOCHS)
    batch: int = option(32, "images a step, over all processes together", minimum=2, maximum=MOST_BATCH)
    learning_rate: float = option(
        0.025, "at the first step; falls to 0 along a cosine", minimum=1e-9, maximum=1e3
    )
    drop_path: float = option(
        0.4,
        "largest probability of dropping an operation, at the last cell and the last step",
        minimum=0,
        maximum=0.999,
    )
    auxiliary: float = option(
        0.4, "weight of the auxiliary classifier's loss; 0 is no such classifier", minimum=0, maximum=10
    )
    cutout: int = option(
        16, "side of a square blanked out of every image; 0 is none", minimum=0, maximum=10_000
    )
    ema: float = option(
        0.0,
        "decay a step of a moving average of the weights, say 0.9999, which is then what is judged and kept; "
        "0 is none",
        minimum=0,
        maximum=0.999999,
    )
    threads: int = option(
        0, "CPU threads of a process; 0 is all cores; their number changes rounding", minimum=0, maximum=1024
    )
    checkpoint_minutes: float = option(
        10.0,
        "between checkpoints within an epoch; there is one after each",
        minimum=0.001,
        maximum=1e6,
        identity=False,
    )
    seeds: int = option(
        1,
        "so many trainings, each in a folder of its own below the run's, with this seed and those after it; "
        "their mean and standard deviation are the result",
        minimum=1,
        maximum=1000,
    )
    init: str = option(
        "",
        "begin with the weights of a file, or of a run's best.safetensors by its folder, as far as they fit; "
        "the cell, N and F are theirs",
        identity=False,
    )
    init_identity: str = option("", "digest of the weights that it begins with; empty is random ones")
    data_identity: str = option("", "digest of the data set; empty while nobody has read it")
    test_identity: str = option("", "digest of the test images; empty while nobody has seen any")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds > 1:
            replace(self, seed=self.seed + self.seeds - 1, seeds=1)  # the last one is checked

    def each_seed(self) -> list[Self]:
        """The single trainings that this configuration describes, which differ in their seed alone."""
        if self.seeds == 1:
            return [self]
        return [replace(self, seed=self.seed + number, seeds=1) for number in range(self.seeds)]

    def resolved(self, processes: int = 1) -> Self:
        """This configuration with device, backend and threads settled for this machine.

        Args:
            processes: that train together.

        Raises:
            ConfigError: a device this machine lacks, a backend that does not serve it, or a batch that the
                processes cannot share evenly.
        """
        if self.batch % processes or self.batch < 2 * processes:
            raise ConfigError(
                f"batch is {self.batch}, allowed are multiples of {processes}, the number of processes, "
                f"from {2 * processes}"
            )
        config = super().resolved()
        return replace(config, threads=config.threads or config._cores(processes))

    def resolved_here(self, demanded: Container[str], processes: int) -> Self:
        """As `resolved`, for a run that may come from another machine.

        Args:
            demanded: the fields that must be as they are. Those of `MACHINE` that are not in it are wishes:
                where this machine cannot fulfil them, its own best takes their place.
            processes: that train together.

        Raises:
            ConfigError: as `resolved`.
        """
        config = self
        if "threads" not in demanded and self.threads > cores():
            config = replace(config, threads=0)
        try:
            return config.resolved(processes)
        except ConfigError:
            free = {name: _default(name) for name in MACHINE if name not in demanded}
            return replace(self, **free).resolved(processes)

    def identity(self) -> dict[str, Any]:
        """See `RunConfig.identity`."""
        values = super().identity()
        del values["data_identity"], values["test_identity"]  # what the data are is said beside it
        # Weights, too, are known by what they are, wherever they lie.
        weights = values.pop("init_identity")
        values["init"] = weights and f"weights {weights[:16]}…"
        return values

    def difference(self, other: Self) -> list[str]:
        """See `RunConfig.difference`; data sets that somebody has read are compared by what they hold."""
        changes = super().difference(other)
        if not (self.data_identity and other.data_identity):
            moved = self.data != other.data
            return [*changes, *[f"--data {self.data} -> {other.data}"] * moved]
        parts = []
        if self.data_identity != other.data_identity:
            if changed := augmented_otherwise(self.values(), other.values()):
                return [*changes, *changed]
            parts.append("images or labels")
        if self.test_identity and other.test_identity and self.test_identity != other.test_identity:
            parts.append("test images or test labels")
        return [*changes, *(f"--data {other.data} holds other {part} than {self.data} did" for part in parts)]

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """See `RunConfig.from_values`; nothing but what earlier versions did not know may be missing."""
        missing = {item.name for item in fields(cls)} - values.keys() - set(cls.SINCE)
        if missing:
            raise ConfigError(f"lacks {' '.join(sorted(missing))}")
        return super().from_values(values)

    def _cores(self, processes: int) -> int:
        return 1 if self.device == "cuda" else max(1, cores() // processes)


def _default(name: str) -> Any:
    return getattr(TrainConfig, name)
