"""How many cores there are, and how many threads torch works with for a while.

Importing this needs no torch; see `granted` for why it should happen before torch is imported.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pnas_fast.cgroups import cpu_quota


def _affinity() -> frozenset[int]:
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(range(os.cpu_count() or 1))
    # Where torch is here first, its OpenMP library knows what there was.
    return frozenset(os.sched_getaffinity(0)) | (_openmp_places() if "torch" in sys.modules else frozenset())


def _openmp_places() -> frozenset[int]:
    """Cores that the OpenMP library of this process ties threads to; none where it ties none."""
    found = set[int]()
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
        library = ctypes.CDLL(next(line.split(maxsplit=5)[5] for line in lines if "libgomp" in line))
        for place in range(library.omp_get_num_places()):
            cores_there = (ctypes.c_int * library.omp_get_place_num_procs(place))()
            library.omp_get_place_proc_ids(place, cores_there)
            found.update(cores_there)
    except (OSError, StopIteration, AttributeError):
        pass
    return frozenset(found)


_GRANTED = _affinity()


def granted() -> frozenset[int]:
    """The cores that this process may run on, by number, as it was when this module was imported.

    Later it may look as though there were one: where OMP_PROC_BIND is set, the OpenMP library that comes
    with torch ties the thread that imports it to a core, and all that is started from there inherits that.
    Where torch was there before, that library (GNU's) is asked.
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
