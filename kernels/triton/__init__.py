"""Fused kernels for CUDA, in Triton. Importing this imports no Triton: the first call of a kernel does."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from pnas_fast.kernels.backend import BackendError
from pnas_fast.kernels.fused.problems import GroupedPrimitives

__all__ = ["LazyPrimitives", "has_triton", "require_triton"]


def has_triton() -> bool:
    """Whether it is installed."""
    return find_spec("triton") is not None


def require_triton() -> None:
    """Refuse to go on without Triton.

    Raises:
        BackendError: it is not installed.
    """
    if not has_triton():
        raise BackendError("backend triton: the package triton is not installed; pip install 'triton>=3.6'")


class LazyPrimitives:
    """`pnas_fast.kernels.triton.primitives.TritonPrimitives`, imported when it is first called."""

    name = "triton"

    def __getattr__(self, name: str) -> Any:
        return getattr(_primitives(), name)


@cache
def _primitives() -> GroupedPrimitives:
    require_triton()
    from pnas_fast.kernels.triton.primitives import TritonPrimitives

    return TritonPrimitives()
