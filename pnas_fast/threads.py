"""How many cores there are, and how many threads torch works with for a while.

Importing this needs no torch; see `granted` for why it should happen before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pnas_fast.cgroups import cpu_quota


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


_GRANTED = _affinity()


def granted() -> frozenset[int]:
    """The cores that this process may run on, by number, as it was when this module was imported.

    Later it may look as though there were one: where OMP_PROC_BIND is set, the OpenMP library that comes
    with torch ties the thread that imports it to a core, and all that is started from there inherits that.
    """
    return _GRANTED


def cores(process: Path = Path("/proc/self")) -> int:
    """Cores this process may use: those it may run on, or fewer where a quota of a control group says so.

    Args:
        process: the process's folder in ``/proc``.
    """
    quota = cpu_quota(process)
    return len(_GRANTED) if quota is None else max(1, min(len(_GRANTED), int(quota)))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch split each operation over ``count`` threads; afterwards over as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
