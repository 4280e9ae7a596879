"""How torch works wherever cells are evaluated, so that it is with the same bits everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pnas_fast.threads import torch_threads


def settle(threads: int) -> None:
    """Set torch up, for good, in a process that does nothing else."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True


@contextmanager
def settled(threads: int) -> Iterator[None]:
    """The same for a while; afterwards denormal numbers are numbers again, which is torch's default."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    torch.set_flush_denormal(True)
    try:
        with torch_threads(threads):
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.backends.cudnn.deterministic = before
