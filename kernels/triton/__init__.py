"""Fused kernels for CUDA, in Triton. Importing this imports no Triton: the first call of a kernel does."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from pnas_fast.kernels.backend import BackendError
from pnas_fast.kernels.fused.primitives import Primitives

__all__ = ["DTYPES", "LazyPrimitives", "require_triton"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Of activations."""


def require_triton() -> None:
    """Refuse to go on without Triton.

    Raises:
        BackendError: it is not installed.
    """
    if find_spec("triton") is None:
        raise BackendError("backend triton: the package triton is not installed; pip install 'triton>=3.6'")


class LazyPrimitives:
    """`pnas_fast.kernels.triton.primitives.TritonPrimitives`, imported when it is first called."""

    name = "triton"
    dtypes: tuple[torch.dtype, ...] = DTYPES

    def __getattr__(self, name: str) -> Any:
        return getattr(_primitives(), name)


@cache
def _primitives() -> Primitives:
    require_triton()
    from pnas_fast.kernels.triton.primitives import TritonPrimitives

    return TritonPrimitives()
