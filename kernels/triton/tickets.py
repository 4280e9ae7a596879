"""Counters of launches, and whose they are. Importing this imports no Triton.

Programs of a launch find out by counters who comes last (see `pnas_fast.kernels.triton.device`). These are
zero between launches, so launches that run one after the other share them; launches that may run at the same
time never do.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Self

import torch
from torch import Tensor

TICKETS = 65536
"""Counters a launch may use."""


class TicketOwner:
    """Whoever launches one kernel after the other: a step that is captured, say, has counters of its own.

    Inside ``with owner:`` launches take the owner's, those of PyTorch's backward threads, too. What was
    captured inside keeps their address: the owner lives as long as that is replayed, and until its stream
    has done what it was given.

    Owners may be inside each other; the innermost counts. One thread at a time has any.
    """

    def __init__(self) -> None:
        self._buffers: dict[torch.device, Tensor] = {}

    def tickets(self, device: torch.device) -> Tensor:
        """Counters, (TICKETS,) int32, zero between launches; the same in every call.

        Raises:
            RuntimeError: a graph is being captured, and the owner launched nothing before that.
        """
        if device not in self._buffers:
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    "tickets: made while a graph is captured, allowed is before: warm up first"
                )
            self._buffers[device] = _zeros(device)
        return self._buffers[device]

    def __enter__(self) -> Self:
        """Launches take this owner's counters.

        Raises:
            RuntimeError: another thread's launches take an owner's.
        """
        _owners.push(self)
        return self

    def __exit__(self, *error: object) -> None:
        """As before."""
        _owners.pop()


class _Owners:
    """The owners that are entered, the innermost last: for all threads, since backwards have their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = 0
        self._entered: list[TicketOwner] = []

    def push(self, owner: TicketOwner) -> None:
        thread = threading.get_ident()
        with self._lock:
            if self._entered and self._thread != thread:
                raise RuntimeError("tickets: two threads launch for owners at once, allowed is one")
            self._thread = thread
            self._entered.append(owner)

    def pop(self) -> None:
        with self._lock:
            self._entered.pop()

    def innermost(self) -> TicketOwner | None:
        with self._lock:
            return self._entered[-1] if self._entered else None


_owners = _Owners()


def tickets(device: torch.device) -> Tensor:
    """Counters, (TICKETS,) int32, that are zero between launches: the innermost owner's.

    Without an owner, streams have their own; all CUDA graphs of a device share some, made before the first
    is captured, so that no graph has to zero them: such graphs run one at a time.
    """
    owner = _owners.innermost()
    if owner is not None:
        return owner.tickets(device)
    if device.type != "cuda":
        return _tickets(device, 0)
    if torch.cuda.is_current_stream_capturing():
        return _tickets(device, None)
    _tickets(device, None)
    return _tickets(device, torch.cuda.current_stream(device).cuda_stream)


@cache
def _tickets(device: torch.device, stream: int | None) -> Tensor:
    return _zeros(device)


def _zeros(device: torch.device) -> Tensor:
    # Made while a network is evaluated, they serve its training as well.
    with torch.inference_mode(False):
        return torch.zeros(TICKETS, dtype=torch.int32, device=device)
