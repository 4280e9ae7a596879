"""Time of every fused CPU operation, forward and backward, and of training steps, beside plain PyTorch.

A group is one case on both backends, so that its table shows how many times faster fused is. The two are
not timed in turns here: `bench/gate.py` does that, and its ratios are the ones to quote.
"""

from typing import Any

import pytest
import torch

from cases import CASES, Case
from pnas_fast.threads import torch_threads
from ratios import settle_allocator


@pytest.mark.parametrize("backend", ["cpu", "eager"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fused_and_eager(benchmark: Any, case: Case, backend: str) -> None:
    torch.manual_seed(0)
    benchmark.group = f"{case.name}, batch 64"
    settle_allocator()
    with torch_threads(case.threads):
        work = case.build(backend)
        work()
        benchmark(work)
