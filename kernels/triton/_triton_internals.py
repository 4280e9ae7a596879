"""All that this project uses of Triton beyond its documented names; `tests/test_internals.py` tells when
it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import cache, driver
from triton.runtime.jit import JITFunction, MockTensor

__all__ = [
    "JITFunction", "MockTensor", "build_elsewhere", "build_launcher", "cached_files", "cuobjdump", "hash_of",
    "installation", "name_in_cache", "put_files",
]  # fmt: skip


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


class _Named(Exception):  # noqa: N818
    """The name under which a kernel is looked for."""


def _named(name: str) -> NoReturn:
    raise _Named(name)


def name_in_cache(build: Callable[[], Any], *, neutral: bool = False) -> str:
    """The hash, in hexadecimal digits, under which a kernel is looked for in the cache; nothing is compiled.

    Args:
        build: calls `build_elsewhere`.
        neutral: leave the installation out, which the hash is of besides source, target, options and
            environment.
    """
    key = (lambda: "") if neutral else cache.triton_key
    with (
        patch.object(triton.compiler.compiler, "get_cache_manager", _named),
        patch.object(cache, "triton_key", key),
    ):
        try:
            build()
        except _Named as found:
            return str(found.args[0])
    raise RuntimeError("Triton compiled without looking into its cache")


def installation() -> list[str]:
    """The hashes of an installation's parts, which are one key; Pythons differ in that of the library."""
    key: str = cache.triton_key()
    return key.split("-")


class CachedFiles(NamedTuple):
    """Of a kernel in the cache: its files' name, what Triton knows of it as JSON, its machine code."""

    name: str
    metadata: str
    cubin: bytes


def cached_files(name: str) -> CachedFiles | None:
    """What the cache has under the hash of `name_in_cache`, None where that is not a whole kernel."""
    folder = Path(triton.knobs.cache.dir) / cache._base32(name)
    for group in folder.glob("__grp__*.json"):
        file = group.name.removeprefix("__grp__").removesuffix(".json")
        # As a launch looks: a group names its files by their whole paths.
        found = cache.get_cache_manager(name).get_group(f"{file}.json") or {}
        if {f"{file}.json", f"{file}.cubin"} <= found.keys():
            metadata, cubin = (Path(found[f"{file}.{kind}"]) for kind in ("json", "cubin"))
            return CachedFiles(file, metadata.read_text(encoding="utf-8"), cubin.read_bytes())
    return None


def put_files(name: str, file: str, metadata: str, cubin: bytes) -> None:
    """Put a kernel into the cache, under the hash of `name_in_cache`."""
    manager = cache.get_cache_manager(name)
    group = {
        f"{file}.cubin": manager.put(cubin, f"{file}.cubin"),
        f"{file}.json": manager.put(metadata, f"{file}.json", binary=False),
    }
    manager.put_group(f"{file}.json", group)


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
