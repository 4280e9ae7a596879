"""All that this project uses of Triton beyond its documented names; `tests/test_internals.py` tells when
it changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction, MockTensor

__all__ = ["JITFunction", "MockTensor", "build_elsewhere", "build_launcher", "cuobjdump", "hash_of"]


class _Elsewhere:
    """What Triton asks a driver for before it compiles: here of a card that need not be there."""

    def __init__(self, architecture: int) -> None:
        self._architecture = architecture

    def get_current_target(self) -> GPUTarget:
        """The card."""
        return GPUTarget("cuda", self._architecture, 32)

    def get_current_device(self) -> str:
        """No number: under those Triton keeps, in memory, what it has compiled for cards that are there."""
        return f"sm_{self._architecture}, elsewhere"

    def get_current_stream(self, device: str) -> int:
        """Nothing runs on it."""
        return 0


@contextmanager
def _active(other: _Elsewhere) -> Iterator[None]:
    before = driver._active
    driver.set_active(other)
    try:
        yield
    finally:
        driver.set_active(before)


def build_elsewhere(kernel: Any, arguments: list[Any], options: dict[str, int], architecture: int) -> Any:
    """A kernel compiled by Triton's own launching code, for a compute capability, as a launch would find it.

    Args:
        kernel: a jitted function.
        arguments: as a launch would have them; of tensors stand-ins will do.
        options: of the compiler.
        architecture: 90 for sm_90.
    """
    elsewhere = _Elsewhere(architecture)
    with _active(elsewhere):
        try:
            return kernel.warmup(*arguments, grid=(1,), **options)
        finally:
            # Machine code is kept in files: in memory nobody asks for it again.
            kernel.device_caches.pop(elsewhere.get_current_device(), None)


def build_launcher(compiled: Any) -> None:
    """Compile what launches a kernel on the card that is here: Triton 3.6 uses C code and a C compiler."""
    driver.active.launcher_cls(compiled.src, compiled.metadata)


def hash_of(function: JITFunction) -> str:
    """The hash of a jitted function's source and of what it calls, by which Triton's cache knows it."""
    key: str = function.cache_key
    return key


def cuobjdump() -> Path:
    """The disassembler in Triton's wheel."""
    return Path(triton.backends.__file__).parent / "nvidia/bin/cuobjdump"
