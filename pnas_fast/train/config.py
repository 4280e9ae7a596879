"""The configuration of a long training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from pnas_fast.cli.options import ConfigError, option
from pnas_fast.runs.config import RunConfig
from pnas_fast.threads import cores


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """How one cell's network is built and trained for long.

    Without arguments: PNASNet-5's cell, N = 3, F = 48, 600 epochs on CIFAR-10 by NASNet's released recipe
    (SPEC 3.3: SGD, 0.025 along one cosine, batch 32, drop-path 0.4, auxiliary loss 0.4, norm 5, weight decay
    5e-4) with cutout of 16 pixels. Every field is also an option of ``python -m pnas_fast.train``.

    Raises:
        ConfigError: a value outside its limits.
    """

    KIND: ClassVar[str] = "training"

    cell: str = option("pnasnet5_cifar", "the cell: its text, or a published network's name")
    data: str = option("cifar10:data/cifar10", "data set: digits, cifar10:DIR or synthetic:HxWxC/CLASSES")
    repeats: int = option(3, "N: the network has 3N cells", minimum=1, maximum=100)
    filters: int = option(48, "F: channels of a block in the first cells", minimum=1, maximum=4096)
    epochs: int = option(600, "passes over the training images", minimum=1)
    batch: int = option(32, "images a step, over all processes together", minimum=2)
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
    cutout: int = option(16, "side of a square blanked out of every image; 0 is none", minimum=0)
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
        10.0, "between checkpoints within an epoch; there is one after each", minimum=0.001, identity=False
    )

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

    def _cores(self, processes: int) -> int:
        return 1 if self.device == "cuda" else max(1, cores() // processes)
