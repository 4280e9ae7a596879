"""Names of kernels in Triton's cache, the same in every process.

A kernel's name holds a hash of its source and of the functions it calls. Triton gives a function that has
no hash yet one on the way, but then leaves out the constants which that function uses: so the name depends
on what the process launched before (as of Triton 3.6), and a kernel compiled ahead is not found. Where
functions have their hashes before those that call them, it depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pnas_fast.kernels.triton._triton_internals import JITFunction, hash_of

_named: set[int] = set()
"""By identity: a function's own hash is this very name."""


def settle_name(function: Any) -> None:
    """Hash what a jitted function calls, then itself."""
    if not isinstance(function, JITFunction) or id(function) in _named:
        return
    _named.add(id(function))
    for called in _mentioned(function.fn):
        settle_name(called)
    hash_of(function)


def _mentioned(function: Any) -> Iterator[Any]:
    """Global values that a function's code mentions, and attributes of modules among them."""
    names = function.__code__.co_names
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, ModuleType):
            yield from (getattr(value, attribute, None) for attribute in names)
