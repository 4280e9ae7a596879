"""What a training runs on, as far as the last bits of its results depend on it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch

from pnas_fast.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """What a training runs on; with another one it has other bits.

    Attributes:
        device: ``cpu`` or ``cuda``, with the GPU's name or the processor's vector instructions.
        backend: of the kernels.
        precision: of activations.
        threads: of a process.
        processes: that train together.
        torch: PyTorch's version.
    """

    device: str
    backend: str
    precision: str
    threads: int
    processes: int
    torch: str

    @classmethod
    def here(cls, config: TrainConfig, processes: int) -> Self:
        """This machine, for a configuration that is resolved."""
        cuda = config.device == "cuda"
        kind = torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability()
        return cls(
            f"{config.device} ({kind})",
            config.backend,
            config.precision,
            config.threads,
            processes,
            torch.__version__,
        )

    def change(self, now: Self) -> str | None:
        """One line about what a training goes on on; None where it is the same."""
        changes = [
            f"{_text(item.name, getattr(now, item.name))} (was {getattr(self, item.name)})"
            for item in fields(self)
            if getattr(self, item.name) != getattr(now, item.name)
        ]
        return f"continues on {', '.join(changes)}: results may differ in the last bits" if changes else None


def _text(name: str, value: str | int) -> str:
    match name:
        case "backend":
            return f"{value} kernels"
        case "threads":
            return f"{value} thread{'s' * (value != 1)}"
        case "processes":
            return f"{value} process{'es' * (value != 1)}"
        case "torch":
            return f"torch {value}"
    return str(value)
