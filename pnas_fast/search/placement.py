"""How many children train side by side, and on which device each."""

from __future__ import annotations

import torch

from pnas_fast.search.config import SearchConfig
from pnas_fast.threads import cores

CPU = "cpu"


def gpus() -> list[str]:
    """The GPUs that torch sees, which are those CUDA_VISIBLE_DEVICES names where it is set."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def places(config: SearchConfig, children_per_gpu: int) -> list[str]:
    """A device for each worker of a resolved configuration: on GPUs in turns, so that few children spread."""
    if config.device == CPU:
        return [CPU] * (config.workers or max(cores() // config.threads, 1))
    return gpus() * children_per_gpu
