"""Backends by name, each made when it is first asked for: nothing is imported or loaded before.

A row tells what a backend needs that may not be there: a compiled module, an instruction set, a package.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from pnas_fast.kernels.backend import Backend, BackendError


def _eager() -> Backend[Any]:
    from pnas_fast.kernels.eager import EagerBackend

    return EagerBackend()


def _cpu() -> Backend[Any]:
    from pnas_fast.kernels.cpu import CpuPrimitives
    from pnas_fast.kernels.fused import FusedBackend

    return FusedBackend(CpuPrimitives())


def _triton() -> Backend[Any]:
    from pnas_fast.kernels.fused import GroupedBackend
    from pnas_fast.kernels.triton import LazyPrimitives

    return GroupedBackend(LazyPrimitives())


def _require_cpu() -> None:
    from pnas_fast.kernels.cpu import require_instruction_set

    require_instruction_set()


def _require_triton() -> None:
    from pnas_fast.kernels.triton import require_triton

    require_triton()


class _Row(NamedTuple):
    """How a backend is made, the module that it needs, and what refuses where it would not run."""

    make: Callable[[], Backend[Any]]
    needs: str | None = None
    require: Callable[[], None] = lambda: None


_ROWS = {
    "eager": _Row(_eager),
    "cpu": _Row(_cpu, "pnas_fast._cpu_kernels", _require_cpu),
    "triton": _Row(_triton, "triton", _require_triton),
}

_BEST_FIRST: dict[str, tuple[str, ...]] = {"cpu": ("cpu", "eager"), "cuda": ("triton", "eager")}

BACKENDS = tuple(_ROWS)
"""Every backend's name."""


def resolve_backend(name: str, device: str) -> str:
    """The backend to use on a device type: ``auto`` is replaced by the best that exists for it.

    Args:
        name: ``auto`` or a name in `BACKENDS`.
        device: a device type, ``cpu`` or ``cuda``.

    Raises:
        BackendError: no such backend, it does not run on that device or as PNAS_FAST_CPU asks, or it is not
            built or installed here.
    """
    serving = _BEST_FIRST[device]
    if name == "auto":
        name = next(known for known in serving if _is_there(known))
    if name not in serving:
        raise BackendError(f"backend {name!r} on {device}: allowed are auto {' '.join(serving)}")
    _ROWS[name].require()
    return name


@cache
def get_backend(name: str) -> Backend[Any]:
    """The backend of that name, always the same one.

    Raises:
        BackendError: no such backend, or it is not built here.
    """
    if name not in _ROWS:
        raise BackendError(f"backend {name!r}: allowed are {' '.join(BACKENDS)}")
    return _ROWS[name].make()


def _is_there(name: str) -> bool:
    needs = _ROWS[name].needs
    return needs is None or find_spec(needs) is not None
