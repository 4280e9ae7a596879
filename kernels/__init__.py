"""The operations of the search space, behind one interface with several backends.

`eager` is plain PyTorch; `cpu` and `triton` are fused kernels, compiled C++ and CUDA. ``auto`` names the best
backend for a device.
"""

from typing import Any

from pnas_fast.kernels.backend import Backend, BackendError, CellOutput, PoolKind, Side, State
from pnas_fast.kernels.cpu import CpuPrimitives, require_instruction_set
from pnas_fast.kernels.eager import EagerBackend
from pnas_fast.kernels.fused import FusedBackend, GroupedBackend
from pnas_fast.kernels.shared_norm import share_batch_norms
from pnas_fast.kernels.triton import LazyPrimitives, has_triton, require_triton

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "CellOutput",
    "PoolKind",
    "Side",
    "State",
    "get_backend",
    "resolve_backend",
    "share_batch_norms",
]

BACKENDS: dict[str, Backend[Any]] = {
    "eager": EagerBackend(),
    "cpu": FusedBackend(CpuPrimitives()),
    "triton": GroupedBackend(LazyPrimitives()),
}
"""Every backend by name."""

_BEST_FIRST: dict[str, tuple[str, ...]] = {"cpu": ("cpu", "eager"), "cuda": ("triton", "eager")}


def resolve_backend(name: str, device: str) -> str:
    """The backend to use on a device type: ``auto`` is replaced by the best that exists for it.

    Args:
        name: ``auto`` or a name in `BACKENDS`.
        device: a device type, ``cpu`` or ``cuda``.

    Raises:
        BackendError: no such backend, or it does not run on that device or as PNAS_FAST_CPU asks.
    """
    serving = _BEST_FIRST[device]
    if name == "auto":
        name = next(known for known in serving if known != "triton" or has_triton())
    if name not in serving:
        raise BackendError(f"backend {name!r} on {device}: allowed are auto {' '.join(serving)}")
    if name == "cpu":
        require_instruction_set()
    if name == "triton":
        require_triton()
    return name


def get_backend(name: str) -> Backend[Any]:
    """The backend of that name.

    Raises:
        BackendError: no such backend.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r}: allowed are {' '.join(BACKENDS)}")
    return BACKENDS[name]
