"""The operations of the search space, behind one interface with several backends.

`eager` is plain PyTorch; `cpu` and `triton` are fused kernels, compiled C++ and CUDA. ``auto`` names the best
backend for a device. Importing this loads none of them: a backend is made when it is first asked for.
"""

from pnas_fast.kernels.backend import Backend, BackendError, CellOutput, PoolKind, Side, State
from pnas_fast.kernels.registry import BACKENDS, get_backend, resolve_backend
from pnas_fast.kernels.shared_norm import share_batch_norms

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
