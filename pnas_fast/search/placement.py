"""How many children train side by side, on which device each, and for what part of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pnas_fast.search.config import SearchConfig
from pnas_fast.threads import cores

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a search's children train.

    ``devices`` has one for each worker process, which trains up to ``lanes`` children side by side; kernels
    are planned for one of ``share`` equal parts of a GPU.
    """

    devices: tuple[str, ...]
    lanes: int = 1
    share: int = 1

    @property
    def children(self) -> int:
        """How many train at a time."""
        return len(self.devices) * self.lanes

    def __str__(self) -> str:
        """``2 workers on the CPU``, ``a worker with 4 children at a time on each of 2 GPUs``."""
        cards = len(set(self.devices))
        each = len(self.devices) // cards
        workers = f"{each} worker{'s' if each > 1 else ''}"
        if self.lanes > 1:
            workers += f" with {self.lanes} children at a time"
        if self.devices[0] == CPU:
            return f"{workers} on the CPU"
        where = "a GPU" if cards == 1 else f"each of {cards} GPUs"
        planned = f", kernels for 1/{self.share} of it" if self.share > 1 else ""
        return f"{workers} on {where}{planned}"


def gpus() -> list[str]:
    """The GPUs that torch sees, which are those CUDA_VISIBLE_DEVICES names where it is set."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def on_cpu(config: SearchConfig) -> Placement:
    """The workers of a resolved configuration that are on the CPU, one child each."""
    return Placement((CPU,) * (config.workers or max(cores() // config.threads, 1)))


def on_gpus(config: SearchConfig, devices: list[str], children: int, share: int) -> Placement:
    """So many children on each GPU.

    They are side by side in a process where their evaluator can stop after each step, as training can. Others
    have a process each, on devices in turns, so that few children spread.
    """
    if config.evaluator == "train":
        return Placement(tuple(devices), children, share)
    return Placement(tuple(devices * children), 1, share)
