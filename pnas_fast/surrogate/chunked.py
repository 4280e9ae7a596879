"""Scoring many candidates chunk by chunk, several chunks at a time on a CPU.

Each chunk is one thread's. Were each operation split over all threads instead, they would wait for each
other after every one of thousands, which takes several times the work where other processes use the
cores. It also leaves a score's bits independent of the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pnas_fast.space import Codes
from pnas_fast.surrogate.members import MemberModule
from pnas_fast.surrogate.prefix_tree import Chunk, PrefixTree
from pnas_fast.threads import torch_threads


def score_chunks(model: MemberModule, codes: Codes, rows: int, score: Callable[[Chunk], Tensor]) -> Tensor:
    """Scores float32 (E, M) of candidates in int8 codes (M, b, 4), on the model's device.

    Args:
        model: whose scores they are.
        codes: of the candidates.
        rows: candidates in a chunk.
        score: gives the scores (E, m) of a chunk.
    """
    device = model.output.device
    tree = PrefixTree(codes, device)
    scores = torch.empty((model.members, len(codes)), device=device)

    @torch.no_grad()
    def fill(start: int) -> None:
        chunk = tree.chunk(start, rows)
        scores[:, chunk.rows] = score(chunk)

    starts = range(0, len(codes), rows)
    if device.type != "cpu":
        for start in starts:
            fill(start)
        return scores
    workers = torch.get_num_threads()
    with torch_threads(1), ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(fill, starts):
            pass
    return scores
