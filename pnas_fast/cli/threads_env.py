"""How long threads of a command wait in loops, said before OpenMP's runtime is loaded, which is with torch.

GNU's runtime has threads that wait for others spin, for milliseconds, before they sleep. On an idle machine
that is no faster than spinning for microseconds; where other processes want the cores, spinning threads keep
from work the very ones that they wait for: two then train at a tenth of the speed of one.
"""

from __future__ import annotations

import os

SPINS = "1000"
"""Rounds that a thread waits in a loop, tens of microseconds; with 200 an idle machine is half as fast."""

_POLICIES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""What a person may have said instead; it stays."""


def wait_briefly() -> None:
    """Have threads of this process and of those it starts sleep early; call it before torch is imported."""
    if not any(name in os.environ for name in _POLICIES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
